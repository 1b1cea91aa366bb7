-- Turns a dead letter into a parked row: `Admin::replay`.
--
-- KEYS: sequence, parked counts, dead letters, dead letter ids, the record, the due queue.
-- ARGV: letter id, plugin, business key, due time, due time in 8 bytes, row.

if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
local record = redis.call('GET', KEYS[5])
if not record or string.byte(record, 1) ~= 3 then return 0 end
local version = struct.pack('>I8', redis.call('INCR', KEYS[1]))
-- The record still bears the run that buried it: if that commit is sent once more, it must
-- not bury the message again.
local parked = '\2' .. string.sub(record, 2, 41) .. version .. ARGV[5]
  .. struct.pack('>I4', 0) .. struct.pack('>I8', 0) .. ARGV[6]
redis.call('SET', KEYS[5], parked)
redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
redis.call('ZADD', KEYS[6], ARGV[4], ARGV[3])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1
