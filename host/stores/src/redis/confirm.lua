-- Deletes confirmed outbox rows: `Store::confirm`.
--
-- KEYS: outbox, outbox lanes. ARGV: row ids, 12 bytes each.

local rows, lane_rows = {}, {}
for _, id in ipairs(ARGV) do
  local row = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. id, '+', 'LIMIT', 0, 1)[1]
  if row and string.sub(row, 1, 12) == id then
    rows[#rows + 1] = row
    local length = struct.unpack('>I4', row, 13)
    if length > 0 then
      lane_rows[#lane_rows + 1] = string.sub(row, 17, 16 + length) .. id
    end
  end
end
for first = 1, #rows, 2000 do
  redis.call('ZREM', KEYS[1], unpack(rows, first, math.min(first + 1999, #rows)))
end
for first = 1, #lane_rows, 2000 do
  redis.call('ZREM', KEYS[2], unpack(lane_rows, first, math.min(first + 1999, #lane_rows)))
end
return #rows
