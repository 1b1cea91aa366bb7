-- Applies a batch of runs: `Store::commit`, whose numbered tests are those in `judge`.
--
-- All runs are judged first, against what is stored and against what the runs before them
-- will write. Only then is anything written, by calls that have no reason to fail: an error
-- between two writes would leave half a batch.
--
-- KEYS: the fixed keys (see `keys.rs`), then one of each record, then one of each state value,
--       then due queue and fences of each plugin, then the name lists.
-- ARGV[1]: the batch (see `batch.rs`), in MessagePack.
-- Reply: two integers a run: a code (see `batch.rs`) and what belongs to it.

local SEQUENCE, HORIZONS, LANES, COUNTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local OUTBOX, OUTBOX_LANES, DEAD, DEAD_IDS = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local FIXED = 8

local APPLIED, APPLIED_NOT_CLEAR, DUPLICATE, MISMATCH = 0, 1, 2, 3
local ALREADY_PARKED, BEHIND, CONFLICT, NOT_A_COUNTER = 4, 5, 6, 7

local DONE_WITH_REPLY, PARKED, DEAD_RECORD = 1, 2, 3
local UNCONDITIONAL = -1
local PUT, DELETE = 0, 1
local NEEDS_VERSION, NEEDS_VALUE = 1, 2

local call, sub, byte = redis.call, string.sub, string.byte
local pack, from_packed = struct.pack, struct.unpack

local batch = cmsgpack.unpack(ARGV[1])
local plugins, records, states, runs = batch[1], batch[2], batch[3], batch[4]
local default_retention, margin = batch[5], batch[6]
local STATES = FIXED + #records

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function bytes8(number) return pack('>I8', number) end
local function number8(text, at) return (from_packed('>I8', text, at)) end

for _, plugin in ipairs(plugins) do
  local retention, visible, oldest_check = default_retention, 0, 0
  local kept = call('HGET', HORIZONS, plugin[1])
  if kept then
    local r, v, o = string.match(kept, '^(%d+) (%d+) (%d+)$')
    retention, visible, oldest_check = tonumber(r), tonumber(v), tonumber(o)
  end
  plugin.name, plugin.due, plugin.fences = plugin[1], KEYS[plugin[2]], KEYS[plugin[2] + 1]
  plugin.any_fence = call('EXISTS', plugin.fences) == 1
  -- Done records before this time count as gone, whether or not the server deleted them yet.
  plugin.visible = math.max(visible, now - retention)
  -- Checks before this time are too old.
  plugin.oldest = math.max(plugin.visible, oldest_check)
  plugin.time = bytes8(math.max(now, plugin.oldest))
  plugin.ttl = string.format('%.0f', retention + margin)
end

-- === what is stored ===

local function parse(value, plugin)
  local record = {kind = byte(value, 1), head = sub(value, 1, 33), version = number8(value, 34)}
  if record.kind <= DONE_WITH_REPLY then
    if number8(value, 42) < plugin.visible then return false end
  elseif record.kind == PARKED then
    record.row, record.due = number8(value, 42), sub(value, 50, 57)
    local length = from_packed('>I4', value, 58)
    record.lane = sub(value, 62, 61 + length)
    record.offset = sub(value, 62 + length, 69 + length)
  end
  return record
end

-- Each record as the runs so far leave it, or false; and as it was before the batch.
local current, before = {}, {}
for first = 1, #records, 1000 do
  local last = math.min(first + 999, #records)
  local values = call('MGET', unpack(KEYS, FIXED + first, FIXED + last))
  for i = first, last do
    local value = values[i - first + 1]
    current[i] = value and parse(value, plugins[records[i][1]])
    before[i] = current[i]
  end
end

-- Each state value: base version if a run reads it, its text as the runs so far leave it
-- (false: none, or not needed), and which runs of the batch wrote it.
local cells = {}
local function cell(i)
  local found = cells[i]
  if found then return found end
  found = {base = 0, text = false, writers = {}}
  local needs = states[i][1]
  if needs == NEEDS_VALUE then
    local value = call('GET', KEYS[STATES + i])
    if value then found.base, found.text = number8(value, 1), sub(value, 9) end
  elseif needs == NEEDS_VERSION then
    local version = call('GETRANGE', KEYS[STATES + i], 0, 7)
    if version ~= '' then found.base = number8(version, 1) end
  end
  cells[i] = found
  return found
end

local sequence = tonumber(call('GET', SEQUENCE) or '0')

-- Members of LANES that the runs so far remove. Those that they add need not be known: a run
-- that parks holds its lane, so no later run of it is applied.
local any_lane = call('EXISTS', LANES) == 1
local removed = {}

local function is_behind(lane, offset)
  if not any_lane then return false end
  local gone, count = removed[lane] or {}, 0
  for _ in pairs(gone) do count = count + 1 end
  local found = call('ZRANGEBYLEX', LANES, '[' .. lane, '(' .. lane .. offset, 'LIMIT', 0, count + 1)
  for _, member in ipairs(found) do
    if not gone[member] then return true end
  end
  return false
end

local function is_fenced(plugin, run_id)
  return plugin.any_fence and call('ZSCORE', plugin.fences, run_id)
end

local function lane_member(record, key)
  return record.lane .. record.offset .. record.due .. key
end

-- === sums of 64-bit integers, which Lua's numbers can't hold ===

-- Sign and digits without leading zeros, or nil.
local function parse_integer(text)
  local sign, digits = string.match(text, '^([+-]?)0*(%d*)$')
  if not sign or not string.find(text, '%d') then return nil end
  if digits == '' then sign = '' end
  return sign == '-', digits
end

local function exceeds(digits, limit)
  if #digits ~= #limit then return #digits > #limit end
  local head, tail = tonumber(sub(digits, 1, 9)), tonumber(sub(digits, 10))
  local limit_head, limit_tail = tonumber(sub(limit, 1, 9)), tonumber(sub(limit, 10))
  return head > limit_head or (head == limit_head and tail > limit_tail)
end

local function in_range(negative, digits)
  return not exceeds(digits, negative and '9223372036854775808' or '9223372036854775807')
end

local HALF = 10000000000 -- ten digits
local function halves(negative, digits)
  local high = tonumber(sub(digits, 1, -11)) or 0
  local low = tonumber(sub(digits, -10)) or 0
  if negative then return -high, -low end
  return high, low
end

-- The sum as text, or nil where it is none.
local function add(text, delta)
  local a_negative, a = parse_integer(text)
  if a_negative == nil or not in_range(a_negative, a) then return nil end
  local b_negative, b = parse_integer(delta)
  if #a <= 15 and #b <= 15 then
    local sum = (tonumber(a) or 0) * (a_negative and -1 or 1)
      + (tonumber(b) or 0) * (b_negative and -1 or 1)
    return string.format('%.0f', sum + 0)
  end
  local a_high, a_low = halves(a_negative, a)
  local b_high, b_low = halves(b_negative, b)
  local high, low = a_high + b_high, a_low + b_low
  -- Both halves must bear the sum's sign.
  local negative = high < 0 or (high == 0 and low < 0)
  if negative then high, low = 0 - high, 0 - low end
  if low < 0 then high, low = high - 1, low + HALF end
  if low >= HALF then high, low = high + 1, low - HALF end
  local digits = string.format('%.0f', low)
  if high > 0 then
    digits = string.format('%.0f', high) .. string.rep('0', 10 - #digits) .. digits
  end
  if not in_range(negative, digits) then return nil end
  return (negative and '-' or '') .. digits
end

-- === judging ===

local held = {}       -- lanes in which a run was parked (1) or is recorded nowhere (2)
local published = {}  -- outbox lanes in which a run so far publishes

local function stands(reads)
  local i = 1
  while reads[i] do
    local found, count = cell(reads[i]), reads[i + 2]
    if found.base ~= reads[i + 1] or #found.writers ~= count then return false end
    for j = 1, count do
      if found.writers[j] ~= reads[i + 2 + j] then return false end
    end
    i = i + 3 + count
  end
  return true
end

local function applied(version, lane, is_new)
  if lane ~= '' then
    local own = '(' .. lane .. bytes8(version)
    if (is_new and published[lane])
      or #call('ZRANGEBYLEX', OUTBOX_LANES, '[' .. lane, own, 'LIMIT', 0, 1) > 0 then
      return APPLIED_NOT_CLEAR, version
    end
  end
  return APPLIED, version
end

-- The outcome, or the sums of its additions if the run is to be applied.
local function judge(run)
  local record = current[run[1]]
  local plugin = plugins[records[run[1]][1]]
  local head, lane = run[2], run[5]
  local run_id = sub(head, 2, 17)
  if record then
    if sub(record.head, 2, 17) == run_id then
      return nil, applied(record.version, run[10], false)                 -- 1
    end
    if sub(record.head, 18) ~= sub(head, 18) then return nil, MISMATCH, 0 end
    if record.kind ~= PARKED then return nil, DUPLICATE, 0 end            -- 2
  end
  if run[3] < plugin.oldest or is_fenced(plugin, run_id) then
    return nil, CONFLICT, 0                                               -- 3
  end
  local waits = run[7] == 1
  local hold = lane ~= '' and held[lane]
  if hold and not (waits and hold == 1) then return nil, CONFLICT, 0 end   -- 4
  if run[4] ~= UNCONDITIONAL and run[4] ~= (record and record.row or 0) then
    return nil, ALREADY_PARKED, 0                                         -- 5
  end
  if lane ~= '' and not waits and is_behind(lane, run[6]) then
    return nil, BEHIND, 0                                                 -- 6
  end
  if not stands(run[8]) then return nil, CONFLICT, 0 end                  -- 7
  local writes, sums = run[9], {}
  for i = 1, #writes, 3 do
    if writes[i + 1] > DELETE then
      local found = cell(writes[i])
      local sum = add(found.text or '0', writes[i + 2])
      if not sum then return nil, NOT_A_COUNTER, (i - 1) / 3 end          -- 8
      sums[i] = sum
    end
  end
  return sums
end

-- === what is to be written ===

local touched = {}                   -- records, by index
local rows, lane_rows = {}, {}       -- members of OUTBOX and OUTBOX_LANES
local letters = {}                   -- ids and letters

local function stage(index, run, sums)
  sequence = sequence + 1
  local version = sequence
  local at = run[1]
  local key = records[at][2]
  local plugin = plugins[records[at][1]]
  local old = current[at]
  if old and old.lane and old.lane ~= '' then
    removed[old.lane] = removed[old.lane] or {}
    removed[old.lane][lane_member(old, key)] = true
  end
  local writes = run[9]
  for i = 1, #writes, 3 do
    local found = cell(writes[i])
    local op = writes[i + 1]
    if op == DELETE then
      found.text = false
    else
      found.text = op == PUT and writes[i + 2] or sums[i]
    end
    found.version = version
    if found.writers[#found.writers] ~= index then
      found.writers[#found.writers + 1] = index
    end
  end
  local code, number = applied(version, run[10], true)
  if run[10] ~= '' then published[run[10]] = true end
  local outgoing, version8 = run[11], bytes8(version)
  for i = 1, #outgoing, 2 do
    local id = version8 .. pack('>I4', (i - 1) / 2)
    local lane = outgoing[i] == 1 and run[10] or ''
    rows[#rows + 1] = 0
    rows[#rows + 1] = id .. pack('>I4', #lane) .. lane .. outgoing[i + 1]
    if lane ~= '' then
      lane_rows[#lane_rows + 1] = 0
      lane_rows[#lane_rows + 1] = lane .. id
    end
  end
  local head = run[2]
  local new = {kind = byte(head, 1), head = head, version = version}
  if new.kind <= DONE_WITH_REPLY then
    new.value, new.ttl = head .. version8 .. plugin.time .. run[12], plugin.ttl
  elseif new.kind == PARKED then
    new.row, new.due = version, run[13]
    new.lane, new.offset = run[14], run[15]
    new.value = head .. version8 .. version8 .. new.due .. pack('>I4', #new.lane) .. new.lane
      .. new.offset .. run[12]
  else
    new.value = head .. version8
    letters[#letters + 1] = run[13]
    letters[#letters + 1] = run[12]
  end
  current[at] = new
  touched[at] = true
  return code, number
end

local reply = {}
for index, run in ipairs(runs) do
  local sums, code, number = judge(run)
  local is_new = sums ~= nil
  if is_new then code, number = stage(index - 1, run, sums) end
  local parks = byte(run[2], 1) == PARKED
  if run[5] ~= '' and code ~= DUPLICATE and (code > APPLIED_NOT_CLEAR or parks) then
    held[run[5]] = math.max(held[run[5]] or 0, code > APPLIED_NOT_CLEAR and 2 or 1)
  end
  reply[#reply + 1] = code
  reply[#reply + 1] = number
end

-- === writing ===

local CHUNK = 2000 -- of an even number of arguments, far below what the Lua stack takes
local function in_chunks(command, key, list)
  for first = 1, #list, CHUNK do
    call(command, key, unpack(list, first, math.min(first + CHUNK - 1, #list)))
  end
end

-- A lane's rows with the smallest offset: lane and offset in one, and the members.
local function heads(lane)
  local first = call('ZRANGEBYLEX', LANES, '[' .. lane, '+', 'LIMIT', 0, 1)[1]
  if not first or sub(first, 1, #lane) ~= lane then return nil end
  local stem = sub(first, 1, #lane + 8)
  return stem, call('ZRANGEBYLEX', LANES, '[' .. stem, '(' .. stem .. '\255')
end

-- Of two offsets. A number here has 53 bits, and how text is ordered is up to the server's locale.
local function is_before(one, other)
  local high, low = from_packed('>I4I4', one)
  local other_high, other_low = from_packed('>I4I4', other)
  if high ~= other_high then return high < other_high end
  return low < other_low
end

local function unpark(plugin, key, record)
  call('HINCRBY', COUNTS, plugin.name, -1)
  local led = call('ZREM', plugin.due, key) == 1
  if record.lane == '' then return end
  call('ZREM', LANES, lane_member(record, key))
  if not led then return end
  local stem, members = heads(record.lane)
  for _, member in ipairs(members or {}) do
    local due = string.format('%.0f', number8(member, #stem + 1))
    call('ZADD', plugin.due, due, sub(member, #stem + 9))
  end
end

local function park(plugin, key, record)
  call('HINCRBY', COUNTS, plugin.name, 1)
  if record.lane ~= '' then
    local stem, members = heads(record.lane)
    call('ZADD', LANES, 0, lane_member(record, key))
    if stem then
      local first = sub(stem, #record.lane + 1)
      if is_before(first, record.offset) then return end
      for _, member in ipairs(first ~= record.offset and members or {}) do
        call('ZREM', plugin.due, sub(member, #stem + 9))
      end
    end
  end
  call('ZADD', plugin.due, string.format('%.0f', number8(record.due, 1)), key)
end

for at in pairs(touched) do
  local plugin, key = plugins[records[at][1]], records[at][2]
  local old, new = before[at], current[at]
  if old and old.kind == PARKED then unpark(plugin, key, old) end
  if new.kind == PARKED then park(plugin, key, new) end
  if new.ttl then
    call('SET', KEYS[FIXED + at], new.value, 'PX', new.ttl)
  else
    call('SET', KEYS[FIXED + at], new.value)
  end
end

local values, named = {}, {}
for i, found in pairs(cells) do
  if found.version then
    local key, names, name = KEYS[STATES + i], KEYS[states[i][2]], states[i][3]
    if found.text then
      values[#values + 1] = key
      values[#values + 1] = bytes8(found.version) .. found.text
      local list = named[names] or {}
      named[names] = list
      list[#list + 1] = 0
      list[#list + 1] = name
    else
      call('DEL', key)
      call('ZREM', names, name)
    end
  end
end
for first = 1, #values, CHUNK do
  call('MSET', unpack(values, first, math.min(first + CHUNK - 1, #values)))
end
for names, list in pairs(named) do in_chunks('ZADD', names, list) end

in_chunks('ZADD', OUTBOX, rows)
in_chunks('ZADD', OUTBOX_LANES, lane_rows)
for i = 1, #letters, 2 do
  call('HSET', DEAD, letters[i], letters[i + 1])
  call('ZADD', DEAD_IDS, 0, letters[i])
end
if next(touched) then call('SET', SEQUENCE, string.format('%.0f', sequence)) end
return reply
