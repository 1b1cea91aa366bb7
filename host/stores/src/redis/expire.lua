-- Moves a plugin's horizon: `Store::expire`. The server deletes the records by itself.
--
-- KEYS: horizons. ARGV: plugin, retention, the host's time, the default retention.

local retention, host_now = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local before, visible, fence = tonumber(ARGV[4]), 0, 0
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then
  local r, v, f = string.match(kept, '^(%d+) (%d+) (%d+)$')
  before, visible, fence = tonumber(r), tonumber(v), tonumber(f)
end
if retention > before then
  -- Records that were written under the shorter retention go by that one, and before the new
  -- one's horizon would refuse a run that was checked before them. So none such may commit.
  visible = math.max(visible, now - before)
  fence = math.max(fence, now + 1)
end
-- A host whose clock is ahead must not drop records early.
visible = math.max(visible, math.min(now, host_now) - retention)
local kept_now = string.format('%.0f %.0f %.0f', retention, math.max(visible, 0), fence)
redis.call('HSET', KEYS[1], ARGV[1], kept_now)
return 0
