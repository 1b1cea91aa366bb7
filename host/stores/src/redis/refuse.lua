-- Makes dead letters of outbox rows: `Store::refuse`.
--
-- KEYS: outbox, outbox lanes, dead letters, dead letter ids.
-- ARGV: for each row its id in 12 bytes, the letter's id and the letter.

for i = 1, #ARGV, 3 do
  local id, letter_id, letter = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local row = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. id, '+', 'LIMIT', 0, 1)[1]
  if row and string.sub(row, 1, 12) == id then
    -- A deletion first: a server without memory may refuse a script's first write, no later one.
    redis.call('ZREM', KEYS[1], row)
    local length = struct.unpack('>I4', row, 13)
    if length > 0 then redis.call('ZREM', KEYS[2], string.sub(row, 17, 16 + length) .. id) end
    redis.call('HSETNX', KEYS[3], letter_id, letter)
    redis.call('ZADD', KEYS[4], 0, letter_id)
  end
end
return 0
