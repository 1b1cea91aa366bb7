-- Says whether a record is done by a run, and fences the run if not: `Store::fence`.
--
-- KEYS: the record, the plugin's fences. ARGV: run id, time.

local head = redis.call('GETRANGE', KEYS[1], 0, 16)
if head == '\0' .. ARGV[1] or head == '\1' .. ARGV[1] then return 1 end
redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
return 0
