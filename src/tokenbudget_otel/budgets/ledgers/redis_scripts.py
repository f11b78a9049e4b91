"""The Lua scripts of the Redis ledger: one for each operation, on top of a common part.

Everything of a ledger is in five keys, whatever is counted:

========================  ====================================================================================
``{root}:counters``       hash: key -> thirteen doubles, see ``FORMAT``; beside them fields that begin with a zero byte:
                          ``SEQ`` (one more with every change), ``EPOCH`` (its id, the ``run_id`` of the server it
                          began in, the ``seq`` that the store came with then, when it admits again, and ``1`` if it
                          began empty and nobody knew more), ``NEXT`` (nothing in ``due`` is due before), and what
                          is in ``limits``, to be read with the counters
``{root}:holds``          hash: id -> state (one letter) and what the hold is, see ``record``
``{root}:due``            sorted set: when a hold (``h`` + id) runs out or is forgotten, a counter (``k`` + key) is
                          dropped, a mark (``m`` + mark) is forgotten
``{root}:limits``         hash: policy -> JSON of :class:`~.ledger.Limits`
``{root}:declared``       hash: name -> document
========================  ====================================================================================

The key names differ only behind the hash tag, so that all are in one slot of a cluster; and as there are no others,
a script is given every key it may touch, also those of holds that it finds to have run out. None of them has a time
to live, so that no server takes away a part of what was counted; ``due`` is what bounds them.

Lua counts in doubles, exact up to 2**53. Numbers become text by ``%.0f``, because ``tostring`` rounds them; those
that are arguments of a command are written exactly by the server.
"""

from __future__ import annotations

from typing import Final

KEYS: Final = ("counters", "holds", "due", "limits", "declared")

_HEAD: Final = """
local COUNTERS, HOLDS, DUE, LIMITS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local EPOCH, SEQ, NEXT, POLICY = '\\0epoch', '\\0seq', '\\0next', '\\0policy:'
local call, null, sub = redis.call, cjson.null, string.sub
-- What the caller knows (seq, until, start), its clock or -1, a time to live, and whether to look at the run_id
local known_seq, opens, start, now, ttl, look = struct.unpack('<dddddB', ARGV[2])
if now < 0 then
  local time = call('TIME')
  now = time[1] + time[2] / 1000000
end
-- 1-3 spent, 4-6 reserved (nano-USD, tokens, calls); 7 open holds; 8 whether to drop it with the last of them;
-- 9 seq of the last change of what is spent; 10 seq and 11-13 spent of the base: as it stood when the epoch began,
-- or as a process that knew better says.
local FORMAT = '<ddddddddddddd'
-- Until when something is remembered: many things until the same moment, so that few operations have to forget some.
local function remembered(seconds) return math.ceil((now + seconds) / COARSE) * COARSE end
local RECORD = '<dHHII'
"""

_EPOCH: Final = """
local epoch = call('HMGET', COUNTERS, EPOCH, SEQ, NEXT)
local seq = tonumber(epoch[2] or 0)
"""

# What is done by every operation but the opening. Of the text of an epoch, bytes 33 to 72 are the run_id of the
# server it began in: another after every restart, and on every other server that takes over. Then nobody else who is
# in that epoch may find it any more, as the script is in the cache of this server now.
_GATE: Final = """
if look == 1 and epoch[1] and not string.find(call('INFO', 'server'), sub(epoch[1], 33, 72), 1, true) then
  call('HSET', COUNTERS, EPOCH, epoch[1] .. '!')
  return 'C'
end
if epoch[1] ~= ARGV[1] or seq < known_seq then return 'C' end
local rebuilding = now < opens
"""

_COUNTING: Final = """
local function float(number) return string.format('%.17g', number) end
local counters, changed, dropped = {}, {}, {}

local function fetch(claims)
  local wanted = {}
  for _, claim in ipairs(claims) do
    local key = claim[1]
    if counters[key] == nil then
      counters[key] = false
      wanted[#wanted + 1] = key
    end
  end
  for from = 1, #wanted, 5000 do
    local upto = math.min(from + 4999, #wanted)
    local found = call('HMGET', COUNTERS, unpack(wanted, from, upto))
    for i = from, upto do
      local raw = found[i - from + 1]
      if raw then counters[wanted[i]] = {struct.unpack(FORMAT, raw)} end
    end
  end
end

local function counter(key, ends)
  local found = counters[key]
  if not found then
    found = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
    counters[key] = found
    if ends then call('ZADD', DUE, float(ends + KEEP), 'k' .. key) end
  end
  changed[key] = found
  return found
end

local function drop(key)
  counters[key], changed[key] = false, nil
  dropped[#dropped + 1] = key
end

local function rebase(n)
  if n[9] <= start then n[10], n[11], n[12], n[13] = n[9], n[1], n[2], n[3] end
end

local function hold(n, claim, sign, holds)
  n[4], n[5], n[6] = n[4] + sign * claim[2], n[5] + sign * claim[3], n[6] + sign * claim[4]
  n[7] = n[7] + holds
end

local function save()
  local nearest = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2] or 'inf'
  for from = 1, #dropped, 5000 do
    call('HDEL', COUNTERS, unpack(dropped, from, math.min(from + 4999, #dropped)))
  end
  local pairs_ = {}
  if #dropped > 0 or next(changed) then
    seq = seq + 1
    pairs_ = {SEQ, string.format('%.0f', seq)}
  end
  if nearest ~= epoch[3] then
    pairs_[#pairs_ + 1] = NEXT
    pairs_[#pairs_ + 1] = nearest
  end
  for key, n in pairs(changed) do
    pairs_[#pairs_ + 1] = key
    pairs_[#pairs_ + 1] = struct.pack(FORMAT, unpack(n, 1, 13))
  end
  for from = 1, #pairs_, 5000 do
    call('HSET', COUNTERS, unpack(pairs_, from, math.min(from + 4999, #pairs_)))
  end
  changed, dropped = {}, {}
end

local function answer(code, claims, rest)
  local spent = {}
  if claims then
    for i, claim in ipairs(claims) do
      local n = counters[claim[1]]
      spent[i] = n and string.format('%.0f %.0f %.0f', n[1], n[2], n[3]) or '0 0 0'
    end
  end
  return string.format('%s%.0f|', code, seq) .. table.concat(spent, ' ') .. '|' .. (rest or '')
end
"""

_CLAIMS_IN: Final = """
-- A claim: 1 key, 2-4 needed, 5-7 limits (not a number: none), 8 hard, 9 end of the window or false, 10 older keys,
-- 11 policy, 12 thousandths of the limits.
local CLAIM = '<ddddddddBHHH'
local function claims_in(text)
  local claims, at, size = {}, 1, #text
  while at <= size do
    local u, t, c, lu, lt, lc, ends, share, hard, key, policy, count, older
    u, t, c, lu, lt, lc, ends, share, hard, key, policy, count, at = struct.unpack(CLAIM, text, at)
    local after = at + key + policy
    if count > 0 then
      older = {}
      for i = 1, count do
        local length, from = struct.unpack('<H', text, after)
        older[i] = {sub(text, from, from + length - 1)}
        after = from + length
      end
    end
    claims[#claims + 1] = {
      sub(text, at, at + key - 1), u, t, c, lu, lt, lc, hard == 1, ends == ends and ends, older or false,
      sub(text, at + key, at + key + policy - 1), share
    }
    at = after
  end
  return claims
end
"""

# Claims and holds, as text and as tables.
_HOLDS_OF: Final = """
local function claims_out(claims)
  local none, text = 0 / 0, {}
  for i, claim in ipairs(claims) do
    text[i] = struct.pack(CLAIM, claim[2], claim[3], claim[4], none, none, none, claim[9] or none, 1000, 1,
                          #claim[1], 0, 0) .. claim[1]
  end
  return table.concat(text)
end

-- Each key once, and their text.
local function counted(claims, text)
  if #claims < 2 then return claims, text end
  local once, seen = {}, {}
  for _, claim in ipairs(claims) do
    if not seen[claim[1]] then
      seen[claim[1]] = true
      once[#once + 1] = claim
    end
  end
  if #once == #claims then return claims, text end
  return once, claims_out(once)
end

local function same(asked, claims)
  if #asked ~= #claims then return false end
  local by_key = {}
  for _, claim in ipairs(claims) do by_key[claim[1]] = claim end
  for _, was in ipairs(asked) do
    local claim = by_key[was[1]]
    if not claim or claim[2] ~= was[2] or claim[3] ~= was[3] or claim[4] ~= was[4] then return false end
  end
  return true
end

-- States of holds: R open, S settled or charged, L released, E run out, A adjusted. Stored is the state, the sizes
-- and the parts: owner, what running out charges (JSON), what it came to (JSON), claims; and, in msgpack and seldom
-- there, asked (claims as text, where extended since), steps (name -> claims as text), booked.
local function record(id)
  local raw = call('HGET', HOLDS, id)
  if not raw then return end
  local created, owner, on_expiry, actual, claims, at = struct.unpack(RECORD, raw, 2)
  local r = {created = created, owner = sub(raw, at, at + owner - 1)}
  at = at + owner
  r.on_expiry = sub(raw, at, at + on_expiry - 1)
  at = at + on_expiry
  r.actual = sub(raw, at, at + actual - 1)
  at = at + actual
  r.text = sub(raw, at, at + claims - 1)
  r.claims = claims_in(r.text)
  if at + claims <= #raw then r.asked, r.steps, r.booked = unpack(cmsgpack.unpack(sub(raw, at + claims))) end
  return sub(raw, 1, 1), r
end

local function asked(r) return r.asked and claims_in(r.asked) or r.claims end

local function stored(state, r)
  local more = ''
  if r.asked or r.steps or r.booked then
    more = cmsgpack.pack({r.asked or false, r.steps or false, r.booked or false})
  end
  return state .. struct.pack(RECORD, r.created, #r.owner, #r.on_expiry, #r.actual, #r.text)
    .. r.owner .. r.on_expiry .. r.actual .. r.text .. more
end

local function keep(id, state, r, due)
  call('HSET', HOLDS, id, stored(state, r))
  call('ZADD', DUE, float(due), 'h' .. id)
end

local function fresh_record(text, claims)
  return {created = now, owner = '', on_expiry = '', actual = '', text = text, claims = claims}
end

-- End a hold (open or not) with what it came to; actual: {amount, {key = amount}}, nil for what is reserved.
local function finish(id, state, r, open, actual, text)
  local booked = state == 'E' and {}
  fetch(r.claims)
  for i, claim in ipairs(r.claims) do
    local key, nano_usd, tokens, calls = claim[1], claim[2], claim[3], claim[4]
    if actual then
      local amount = actual[2][key] or actual[1]
      if amount[1] ~= null then nano_usd = amount[1] end
      tokens, calls = amount[2], amount[3]
    end
    if booked then booked[i] = {nano_usd, tokens, calls} end
    local was = not open and counters[key] and r.booked and r.booked[i]
    local n = counter(key, claim[9])
    if open then hold(n, claim, -1, -1) end
    if was then nano_usd, tokens, calls = nano_usd - was[1], tokens - was[2], calls - was[3] end
    rebase(n)
    n[1], n[2], n[3], n[9] = n[1] + nano_usd, n[2] + tokens, n[3] + calls, seq + 1
    if n[8] == 1 and n[7] == 0 then drop(key) end
  end
  r.owner, r.on_expiry, r.steps, r.booked, r.actual = '', '', false, booked, text or ''
  keep(id, state, r, remembered(state == 'E' and REMEMBER_EXPIRED or REMEMBER))
end
"""

_SWEEP: Final = """
-- End holds that have run out, forget holds, marks and windows of long ago: at most so many. Nothing while processes
-- are putting back what they know, because nobody could renew a hold while the store was away.
local function sweep(most)
  local ended = {}
  if rebuilding then return ended, 0 end
  local due = call('ZRANGEBYSCORE', DUE, '-inf', float(now), 'LIMIT', 0, most)
  for _, member in ipairs(due) do
    local kind, name = sub(member, 1, 1), sub(member, 2)
    if kind == 'h' then
      local state, r = record(name)
      if state == 'R' then
        finish(name, 'E', r, true, r.on_expiry ~= '' and {cjson.decode(r.on_expiry), {}} or nil)
        ended[#ended + 1] = name
      else
        call('HDEL', HOLDS, name)
        call('ZREM', DUE, member)
      end
    elseif kind == 'k' then
      fetch({{name}})
      if counters[name] and counters[name][7] > 0 then
        call('ZADD', DUE, float(now + KEEP), member)
      else
        if counters[name] then drop(name) end
        call('ZREM', DUE, member)
      end
    else
      call('ZREM', DUE, member)
    end
  end
  return ended, #due
end
"""

_ROOM: Final = """
-- Which claims have no room: the hard ones, and the soft ones; as text: index, spent, reserved, limits in force.
local NOTHING = {0, 0, 0, 0, 0, 0}
local function room(claims)
  fetch(claims)
  local policies, instead = {}, {}
  for i, claim in ipairs(claims) do
    if claim[10] then fetch(claim[10]) end
    policies[i] = POLICY .. claim[11]
  end
  if #policies > 0 then
    for i, limits in ipairs(call('HMGET', COUNTERS, unpack(policies))) do
      if limits then instead[policies[i]] = cjson.decode(limits) end
    end
  end
  local refused, over
  for i, claim in ipairs(claims) do
    local s, short = counters[claim[1]] or NOTHING, false
    if claim[10] then
      s = {s[1], s[2], s[3], s[4], s[5], s[6]}
      for _, older in ipairs(claim[10]) do
        local n = counters[older[1]]
        if n then for d = 1, 6 do s[d] = s[d] + n[d] end end
      end
    end
    local other, share = instead[policies[i]], claim[12]
    for d = 1, 3 do
      local limit = claim[d + 4]
      if other and other[d] ~= null then limit = other[d] end
      if limit == limit then
        if share ~= 1000 then  -- in two parts, so that no product is beyond what a double holds exactly
          local thousands = math.floor(limit / 1000)
          limit = thousands * share + math.floor((limit - thousands * 1000) * share / 1000)
        end
        local needed = claim[d + 1]
        if needed > 0 and s[d] + s[d + 3] + needed > limit then short = true end
      end
      claim[d + 4] = limit
    end
    if short then
      local text = {string.format('%d', i - 1)}
      for d = 1, 6 do text[d + 1] = string.format('%.0f', s[d]) end
      for d = 5, 7 do text[d + 3] = claim[d] == claim[d] and string.format('%.0f', claim[d]) or '-' end
      text = table.concat(text, ' ')
      if claim[8] then
        refused = refused and refused .. ' ' .. text or text
      else
        over = over and over .. ' ' .. text or text
      end
    end
  end
  return refused, over
end
"""

# The usual case, in as few steps as it can be done in: nothing has run out, every key is named once, and has room.
# Whatever is not so is left to the whole of the script, which follows it.
_RESERVE_USUAL: Final = """
local id, owner, on_expiry, text = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local claims = claims_in(text)
local fields, usual = {EPOCH, SEQ, NEXT}, #claims < 1000
for i, claim in ipairs(claims) do
  fields[2 * i + 2], fields[2 * i + 3] = claim[1], POLICY .. claim[11]
  if claim[10] or claim[12] ~= 1000 then usual = false end
end
local epoch = call('HMGET', COUNTERS, unpack(fields, 1, usual and #fields or 3))
local seq = tonumber(epoch[2] or 0)
"""

_RESERVE_SHORT: Final = """
if rebuilding then return 'W' end
local nearest = tonumber(epoch[3] or 0)
if usual and now < nearest then
  local news, seen = {SEQ, seq + 1}, {}
  for i, claim in ipairs(claims) do
    local key, raw, instead = claim[1], epoch[2 * i + 2], epoch[2 * i + 3]
    if instead or seen[key] or not raw and claim[9] then usual = false end
    raw = raw or string.rep('\\0', 104)
    local u, t, c, more_u, more_t, more_c, open = struct.unpack('<ddddddd', raw)
    more_u, more_t, more_c = more_u + claim[2], more_t + claim[3], more_c + claim[4]
    if claim[2] > 0 and u + more_u > claim[5] or claim[3] > 0 and t + more_t > claim[6]
      or claim[4] > 0 and c + more_c > claim[7] then usual = false end
    if not usual then break end
    seen[key], news[2 * i + 1] = true, key
    news[2 * i + 2] = sub(raw, 1, 24) .. struct.pack('<dddd', more_u, more_t, more_c, open + 1) .. sub(raw, 57)
  end
  if usual and call('HSETNX', HOLDS, id, 'R' .. struct.pack(RECORD, now, #owner, #on_expiry, 0, #text)
                    .. owner .. on_expiry .. text) == 1 then
    call('ZADD', DUE, now + ttl, 'h' .. id)
    if now + ttl < nearest then
      news[#news + 1] = NEXT
      news[#news + 1] = now + ttl
    end
    call('HSET', COUNTERS, unpack(news))
    return string.format('G%.0f||', seq + 1)
  end
end
"""

_RESERVE: Final = """
local swept = #sweep(SWEEP) > 0
local once, once_text = counted(claims, text)
local refused, over = room(claims)
local made
if not refused then
  made = {created = now, owner = owner, on_expiry = on_expiry, actual = '', text = once_text}
  made = call('HSETNX', HOLDS, id, stored('R', made)) == 1
end
if not made then
  local state, r = record(id)
  save()
  if not state then return answer('N', nil, refused) end
  return answer(state ~= 'A' and same(asked(r), once) and 'P' or 'X')
end
for _, claim in ipairs(once) do hold(counter(claim[1], claim[9]), claim, 1, 1) end
call('ZADD', DUE, float(now + ttl), 'h' .. id)
save()
return answer('G', swept and once, over)
"""

_EXTEND: Final = """
local id, step, text = ARGV[3], ARGV[4], ARGV[5]
if rebuilding and text ~= '' then return 'W' end
sweep(SWEEP)
local state, r = record(id)
if state ~= 'R' then
  save()
  return answer('O', nil, state or '-')
end
local claims = claims_in(text)
local once, once_text = counted(claims, text)
local code, over = 'G', nil
if #once > 0 then
  fetch(once)
  local done = r.steps and r.steps[step]
  if done then
    code = 'P'
    if not same(claims_in(done), once) then
      save()
      return answer('X')
    end
  else
    local mine, strange = {}, nil
    for _, claim in ipairs(r.claims) do mine[claim[1]] = claim end
    for _, claim in ipairs(once) do
      if not mine[claim[1]] and (not strange or claim[1] < strange) then strange = claim[1] end
    end
    if strange then
      save()
      return answer('S', nil, strange)
    end
    local refused
    refused, over = room(claims)
    if refused then
      save()
      return answer('N', nil, refused)
    end
    for _, claim in ipairs(once) do
      hold(counter(claim[1], claim[9]), claim, 1, 0)
      local was = mine[claim[1]]
      was[2], was[3], was[4] = was[2] + claim[2], was[3] + claim[3], was[4] + claim[4]
    end
    r.asked, r.steps, r.text = r.asked or r.text, r.steps or {}, claims_out(r.claims)
    r.steps[step] = once_text
    call('HSET', HOLDS, id, stored('R', r))
  end
end
if ttl >= 0 then call('ZADD', DUE, float(now + ttl), 'h' .. id) end
save()
return answer(code, once, over)
"""

_RENEW: Final = """
local ids, gone, alive = cjson.decode(ARGV[3]), {}, {}
sweep(SWEEP)
for i, raw in ipairs(call('HMGET', HOLDS, unpack(ids))) do
  if raw and sub(raw, 1, 1) == 'R' then
    alive[#alive + 1] = float(now + ttl)
    alive[#alive + 1] = 'h' .. ids[i]
  else
    gone[#gone + 1] = ids[i]
  end
end
if #alive > 0 then call('ZADD', DUE, 'GT', unpack(alive)) end
save()
return {answer('D'), gone}
"""

# The usual case again: an open hold, settled by who made it.
_SETTLE_USUAL: Final = """
local id, text, claims = ARGV[3], ARGV[4], ARGV[5]
local raw, mine = not claims and call('HGET', HOLDS, id), {}
local fields = {EPOCH, SEQ, NEXT}
local usual = raw and sub(raw, 1, 1) == 'R'
if usual then
  local created, owner, on_expiry, actual, size, at = struct.unpack(RECORD, raw, 2)
  at = at + owner + on_expiry + actual
  usual = at + size > #raw  -- was not extended
  local of = sub(raw, at, at + size - 1)
  raw, mine = 'S' .. struct.pack(RECORD, created, 0, 0, #text, size) .. text .. of, claims_in(of)
  for i, claim in ipairs(mine) do fields[i + 3] = claim[1] end
end
local epoch = call('HMGET', COUNTERS, unpack(fields))
local seq = tonumber(epoch[2] or 0)
"""

_SETTLE_SHORT: Final = """
local forgotten = remembered(REMEMBER)
if usual and forgotten >= tonumber(epoch[3] or 'inf') then
  local actual, news, spent = cjson.decode(text), {SEQ, seq + 1}, {}
  for i, claim in ipairs(mine) do
    local amount = actual[2][claim[1]] or actual[1]
    local raw = epoch[i + 3] or string.rep('\\0', 104)
    local u, t, c, reserved_u, reserved_t, reserved_c, open, forget, changed = struct.unpack('<ddddddddd', raw)
    if open == 0 or forget == 1 then
      usual = false
      break
    end
    local base = changed <= start and struct.pack('<dddd', changed, u, t, c) or sub(raw, 73)
    u, t, c = u + (amount[1] == null and claim[2] or amount[1]), t + amount[2], c + amount[3]
    news[2 * i + 1], news[2 * i + 2] = claim[1], struct.pack('<ddddddddd', u, t, c,
      reserved_u - claim[2], reserved_t - claim[3], reserved_c - claim[4], open - 1, 0, seq + 1) .. base
    spent[i] = string.format('%.0f %.0f %.0f', u, t, c)
  end
  if usual then
    call('HSET', HOLDS, id, raw)
    call('ZADD', DUE, forgotten, 'h' .. id)
    call('HSET', COUNTERS, unpack(news))
    return string.format('D%.0f|', seq + 1) .. table.concat(spent, ' ') .. '|'
  end
end
"""

# Who made the hold sends no claims, unless the store turns out not to know it: U.
_SETTLE: Final = """
local state, r = record(id)
local once, once_text
if claims then
  once, once_text = counted(claims_in(claims), claims)
elseif not r then
  return answer('U')
end
if once then fetch(once) end
if state == 'S' or state == 'A' then
  fetch(r.claims)
  return answer(state == 'S' and r.actual == text and 'P' or 'X', once or r.claims)
end
r = r or fresh_record(once_text, once)
finish(id, 'S', r, state == 'R', cjson.decode(text), text)
save()
return answer(state == 'R' and 'D' or 'L', once or r.claims)
"""

_RELEASE: Final = """
local id = ARGV[3]
local state, r = record(id)
if state ~= 'R' and state ~= 'E' then
  if r then fetch(r.claims) end
  return answer(state == 'L' and 'P' or 'I', r and r.claims)
end
finish(id, 'L', r, state == 'R', {{0, 0, 0}, {}})
save()
return answer(state == 'R' and 'D' or 'L', r.claims)
"""

# ``charge`` and ``adjust``: what nobody reserved.
_BOOK: Final = """
local id, state, text = ARGV[3], ARGV[4], ARGV[5]
local claims, claims_text = counted(claims_in(ARGV[6]), ARGV[6])
sweep(SWEEP)
local known, r = record(id)
if known then
  fetch(claims)
  save()
  local again = known == state and r.actual == text and same(asked(r), claims)
  return answer(again and 'P' or 'X', claims)
end
finish(id, state, fresh_record(claims_text, claims), false, cjson.decode(text), text)
save()
return answer('D', claims)
"""

_EXPIRE: Final = """
local ended, found = sweep(tonumber(ARGV[3]))
save()
return {answer('D'), found, ended}
"""

_SIX: Final = """
local function six(n) return string.format('%.0f %.0f %.0f %.0f %.0f %.0f', n[1], n[2], n[3], n[4], n[5], n[6]) end
"""

_READ: Final = """
local keys, found = cjson.decode(ARGV[3]), {}
sweep(SWEEP)
for i, key in ipairs(keys) do keys[i] = {key} end
fetch(keys)
for i, key in ipairs(keys) do found[i] = six(counters[key[1]] or {0, 0, 0, 0, 0, 0}) end
save()
return {answer('D'), table.concat(found, ' ')}
"""

_BALANCES: Final = """
if ARGV[3] == '0' then
  sweep(SWEEP)
  save()
end
local page, found = call('HSCAN', COUNTERS, ARGV[3], 'COUNT', 1000), {}
for i = 1, #page[2], 2 do
  local key = page[2][i]
  if string.byte(key) ~= 0 and sub(key, 1, #ARGV[4]) == ARGV[4] then
    found[#found + 1] = key
    found[#found + 1] = six({struct.unpack(FORMAT, page[2][i + 1])})
  end
end
return {answer('D'), page[1], found}
"""

_HOLDS: Final = """
if ARGV[3] == '0' then
  sweep(SWEEP)
  save()
end
local page, found = call('HSCAN', HOLDS, ARGV[3], 'COUNT', 1000), {}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  local state, r = record(id)
  if state == 'R' then
    local claims = {}
    for _, claim in ipairs(r.claims) do
      claims[#claims + 1] = claim[1]
      claims[#claims + 1] = string.format('%.0f %.0f %.0f', claim[2], claim[3], claim[4])
    end
    found[#found + 1] = {id, float(r.created) .. ' ' .. call('ZSCORE', DUE, 'h' .. id), r.owner, claims}
  end
end
return {answer('D'), page[1], found}
"""

_FORGET: Final = """
for _, key in ipairs(cjson.decode(ARGV[3])) do
  fetch({{key}})
  if counters[key] then
    counter(key)[8] = 1
    if counters[key][7] == 0 then drop(key) end
  end
end
save()
return answer('D')
"""

_FIRST: Final = """
local new = call('ZADD', DUE, 'NX', ARGV[4], 'm' .. ARGV[3]) == 1
save()
return answer(new and 'D' or 'P')
"""

# ``set_limits`` and ``declare``; ``limits`` and ``declared``.
_PUT: Final = """
local where = KEYS[tonumber(ARGV[3])]
local function put(hash, name)
  if ARGV[5] then call('HSET', hash, name, ARGV[5]) else call('HDEL', hash, name) end
end
put(where, ARGV[4])
if where == LIMITS then put(COUNTERS, POLICY .. ARGV[4]) end
return answer('D')
"""

_ALL: Final = """
return {answer('D'), call('HGETALL', KEYS[tonumber(ARGV[3])])}
"""

# Reads only, so that a server is judged before anything is written to it.
_INSPECT: Final = """
local call = redis.call
return call('INFO', 'server') .. call('INFO', 'memory') .. call('INFO', 'replication') .. call('INFO', 'persistence')
"""

# Begin an epoch where the store is new, empty, rolled back or restarted; then put back what the caller knows.
_RESTORE: Final = """
local JUMP = 1000000000
local info = call('INFO', 'server')
local known, new, ask = ARGV[3], ARGV[4], cjson.decode(ARGV[5])
local run = string.match(info, 'run_id:(%x+)')
local id, fresh = '', '0'
start, opens = 0, 0
if epoch[1] then
  id = sub(epoch[1], 1, 32)
  start, opens, fresh = string.match(sub(epoch[1], 73), ' (%S+) (%S+) (%S+)')
  start, opens = tonumber(start), tonumber(opens)
end
if not epoch[1] then
  id = new
  if known == '' then fresh = '1' else opens, seq = now + GRACE, known_seq + JUMP end
elseif sub(epoch[1], 33, 72) ~= run or (id == known and seq < known_seq) then
  id, fresh, start, opens, seq = new, '0', seq, now + GRACE, math.max(seq, known_seq) + JUMP
elseif known ~= '' and id ~= known then
  -- What began as new was not: somebody knows of an earlier one.
  if fresh == '1' then fresh, opens = '0', now + GRACE end
  if known_seq >= seq then seq = known_seq + JUMP end
end
local text = string.format('%s%s %.0f %.17g %s', id, run, start, opens, fresh)
call('HSET', COUNTERS, EPOCH, text, SEQ, string.format('%.0f', seq))
-- Who knows this epoch has nothing to put back.
if id == known then return {answer('D'), text} end

fetch(ask[1])
for _, entry in ipairs(ask[1]) do
  local ends = entry[6] ~= null and entry[6]
  if not ends or ends + KEEP > now then
    local n = counter(entry[1], ends)
    rebase(n)
    if entry[2] > n[10] then
      n[1], n[2], n[3] = n[1] + entry[3] - n[11], n[2] + entry[4] - n[12], n[3] + entry[5] - n[13]
      n[9], n[10], n[11], n[12], n[13] = seq + 1, entry[2], entry[3], entry[4], entry[5]
    end
  end
end

-- As it came in JSON: {key, nano-USD, tokens, calls, end of the window}
local function told(claims)
  local found = {}
  for i, claim in ipairs(claims) do
    found[i] = {claim[1], claim[2], claim[3], claim[4], [9] = claim[5] ~= null and claim[5]}
  end
  return found
end

local function reserve(claims, sign)
  fetch(claims)
  for _, claim in ipairs(claims) do hold(counter(claim[1], claim[9]), claim, sign, sign) end
end

-- What an open hold in the store reserves gives way to what its owner says.
for _, mine in ipairs(ask[2]) do
  local name, claims = mine[1], told(mine[2])
  local state, r = record(name)
  if state == 'R' then reserve(r.claims, -1) end
  if state == 'R' or not state then
    reserve(claims, 1)
    local back = fresh_record(claims_out(claims), claims)
    back.created, back.on_expiry, back.owner = r and r.created or now, mine[4], mine[5]
    for step, more in pairs(mine[6]) do
      back.asked, back.steps = claims_out(told(mine[7])), back.steps or {}
      back.steps[step] = claims_out(told(more))
    end
    keep(name, 'R', back, now + mine[3])
  end
end

-- What these came to is in what is spent already.
for _, mine in ipairs(ask[3]) do
  local name, claims = mine[1], told(mine[4])
  local state, r = record(name)
  if state == 'R' then reserve(r.claims, -1) end
  if state == 'R' or state == 'E' or not state then
    local back = fresh_record(claims_out(claims), claims)
    back.actual = mine[3]
    keep(name, mine[2], back, remembered(REMEMBER))
  end
end

for _, each in ipairs(ask[4]) do
  local where = KEYS[each[1]]
  if call('HSETNX', where, each[2], each[3]) == 1 and where == LIMITS then
    call('HSET', COUNTERS, POLICY .. each[2], each[3])
  end
end
save()
return {answer('D', ask[1]), text}
"""


def scripts(*, keep_windows: float, remember: float, remember_expired: float, grace: float) -> dict[str, str]:
    """The text of every script, by the name of its operation. Times in seconds.

    >>> sorted(scripts(keep_windows=1, remember=1, remember_expired=1, grace=1))[:4]
    ['all', 'balances', 'book', 'expire']
    """
    constants = (
        f"local KEEP, REMEMBER, REMEMBER_EXPIRED = {keep_windows:.17g}, {remember:.17g}, {remember_expired:.17g}\n"
        f"local GRACE, SWEEP, COARSE = {grace:.17g}, 50, {max(remember / 32, 0.001):.17g}\n"
    )
    head = constants + _HEAD
    counting = head + _EPOCH + _GATE + _COUNTING
    ending = _CLAIMS_IN + _HOLDS_OF
    sweeping = counting + ending + _SWEEP
    usual = head + _CLAIMS_IN
    return {
        "reserve": usual + _RESERVE_USUAL + _GATE + _RESERVE_SHORT + _COUNTING + _HOLDS_OF + _SWEEP + _ROOM + _RESERVE,
        "extend": sweeping + _ROOM + _EXTEND,
        "renew": sweeping + _RENEW,
        "settle": usual + _SETTLE_USUAL + _GATE + _SETTLE_SHORT + _COUNTING + _HOLDS_OF + _SETTLE,
        "release": counting + ending + _RELEASE,
        "book": sweeping + _BOOK,
        "expire": sweeping + _EXPIRE,
        "read": sweeping + _SIX + _READ,
        "balances": sweeping + _SIX + _BALANCES,
        "holds": sweeping + _HOLDS,
        "forget": counting + _FORGET,
        "first": counting + _FIRST,
        "put": counting + _PUT,
        "all": counting + _ALL,
        "inspect": _INSPECT,
        "restore": head + _EPOCH + _COUNTING + ending + _RESTORE,
    }
