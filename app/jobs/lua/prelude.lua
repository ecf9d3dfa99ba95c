-- What every transition shares. A transition is one script: it happens whole or not at all.
-- Every script may be run twice (the client sends a command again when its reply was lost) and then answers the same.
local PREFIX = 'hemostat-jobs:'
local TERMINAL = {succeeded = true, failed = true, cancelled = true}
local EVENTS_KEPT = 2000

local function key(name, id)
    return PREFIX .. name .. ':' .. id
end

-- Redis's clock, not the callers': they may stand on several machines.
local function now()
    local time = redis.call('TIME')
    return string.format('%d.%06d', time[1], time[2])
end

-- Event n of a job has the stream id n-0, so that a reader can tell from two ids whether it missed one.
-- `body` is the JSON of the event's own fields, without braces.
local function emit(id, kind, body, at)
    local n = redis.call('HINCRBY', key('job', id), 'events', 1)
    redis.call('XADD', key('events', id), 'MAXLEN', '~', EVENTS_KEPT, n .. '-0',
        'data', '{"type":"' .. kind .. '",' .. body .. ',"at":' .. at .. '}')
end

local function emit_state(id, status, attempt, at)
    emit(id, 'state', '"status":"' .. status .. '","attempt":' .. attempt, at)
end

-- By a counter, not by the clock: a clock that jumps would change the order.
local function line_up(id, owner)
    redis.call('ZADD', key('queued', owner), redis.call('INCR', PREFIX .. 'lined-up'), id)
    redis.call('SADD', PREFIX .. 'waiting-owners', owner)
end

local function leave_line(id, owner)
    redis.call('ZREM', key('queued', owner), id)
    if redis.call('EXISTS', key('queued', owner)) == 0 then
        redis.call('SREM', PREFIX .. 'waiting-owners', owner)
    end
end

local function move(id, from, to)
    redis.call('ZREM', key('status', from), id)
    redis.call('ZADD', key('status', to), 0, id)
    redis.call('HSET', key('job', id), 'status', to)
    local owner = redis.call('HGET', key('job', id), 'owner')
    if from == 'queued' then
        leave_line(id, owner)
    end
    if to == 'queued' then
        line_up(id, owner)
    end
end

-- The one way into a terminal status. `error_json` is '' unless it failed. What it leaves to be tidied is noted.
local function finish(id, from, to, attempt, error_json)
    local at = now()
    local job = key('job', id)
    move(id, from, to)
    redis.call('HSET', job, 'finished_at', at, 'updated_at', at, 'error', error_json)
    redis.call('HINCRBY', PREFIX .. 'finished', redis.call('HGET', job, 'kind') .. ':' .. to, 1)
    redis.call('ZADD', PREFIX .. 'ended', redis.call('HGET', PREFIX .. 'clock', 'served') or 0, id)
    redis.call('SADD', PREFIX .. 'untidy', id)
    emit_state(id, to, attempt, at)
    emit(id, 'end', '"status":"' .. to .. '","error":' .. (error_json == '' and 'null' or error_json), at)
end
