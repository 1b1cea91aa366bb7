-- Turns a dead letter into the outbox row that it was: `Admin::replay`.
--
-- KEYS: outbox, outbox lanes, dead letters, dead letter ids.
-- ARGV: letter id, member of the outbox, member of the outbox lanes or nothing.

if redis.call('HDEL', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[1], 0, ARGV[2])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[2], 0, ARGV[3]) end
return 1
