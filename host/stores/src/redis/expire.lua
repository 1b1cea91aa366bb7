-- Moves a plugin's horizon and drops fences below it: `Store::expire`. The server deletes the
-- records by itself.
--
-- KEYS: horizons, the plugin's fences.
-- ARGV: plugin, retention, the host's time, the default retention, the margin of expiry.

local retention, host_now = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local before, visible, oldest_check = tonumber(ARGV[4]), 0, 0
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then
  local r, v, o = string.match(kept, '^(%d+) (%d+) (%d+)$')
  before, visible, oldest_check = tonumber(r), tonumber(v), tonumber(o)
end
if retention > before then
  -- Records that were written under the shorter retention go by that one, and before the new
  -- one's horizon would refuse a run that was checked before them. So none such may commit.
  visible = math.max(visible, now - before)
  oldest_check = math.max(oldest_check, now + 1)
end
-- A host whose clock is ahead must not drop records early.
visible = math.max(visible, math.min(now, host_now) - retention, 0)
local kept_now = string.format('%.0f %.0f %.0f', retention, visible, oldest_check)
redis.call('HSET', KEYS[1], ARGV[1], kept_now)
-- A fenced run was checked before it was fenced, so its check is too old by now.
local needless = math.max(visible, oldest_check) - tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', needless))
return 0
