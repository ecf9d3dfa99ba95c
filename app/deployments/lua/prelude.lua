-- What every change shares. A change is one script: it happens whole or not at all, and says so in one event.
-- Every script may be run twice (the client sends a command again when its reply was lost) and then changes nothing.
local PREFIX = 'hemostat-deployments:'
local EVENTS_KEPT = 2000

local function key(name, id, rest)
    return PREFIX .. name .. ':' .. id .. (rest and ':' .. rest or '')
end

-- Redis's clock, not the callers': they may stand on several machines.
local function now()
    local time = redis.call('TIME')
    return string.format('%d.%06d', time[1], time[2])
end

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Until when what is to be forgotten may be in memory, and since when on disk (disk.lua): samples expire after so many
-- ms, a deployment is gone at once.
local function note_disk(expiry)
    local disk, at = PREFIX .. 'disk', milliseconds()
    local last = math.max(at + expiry, tonumber(redis.call('HGET', disk, 'until') or 0))
    redis.call('HSET', disk, 'until', string.format('%.0f', last))
    redis.call('HSETNX', disk, 'since', string.format('%.0f', at))
end

local function text(value)
    return cjson.encode(value)
end

-- Event n has the stream id n-0, so that a reader can tell from two ids whether it missed one.
-- `rest` is the JSON of the event's further fields, each behind a comma.
local function emit(id, kind, rest, at)
    local n = redis.call('HINCRBY', key('deployment', id), 'events', 1)
    redis.call('XADD', key('events', id), 'MAXLEN', '~', EVENTS_KEPT, n .. '-0',
        'data', '{"type":"' .. kind .. '"' .. rest .. ',"at":' .. at .. '}')
end

-- A JSON string or null of a field of the record; nil where there is none.
local function held(id, field)
    local value = redis.call('HGET', key('deployment', id), field)
    if not value or value == 'null' then
        return nil
    end
    return cjson.decode(value)
end

local function set(id, field, value)
    redis.call('HSET', key('deployment', id), field, value == nil and 'null' or text(value))
end

-- What comes back when calibration is no longer off: `active`, `previous` (nil: none) and `fit_reason`. A deployment that
-- was made with calibration off has only the version that it was to serve.
local function before_off(id)
    return held(id, 'before_off') or {active = held(id, 'previous_version') or 'identity', fit_reason = ''}
end

-- Whether the change that `token` stands for was made already.
local function repeated(id, token)
    return not redis.call('SET', key('token', id, token), '1', 'NX', 'EX', 60)
end

local function say_replica(id, replica, role, state, reason, at)
    emit(id, 'replica', ',"reason":' .. text(reason) .. ',"evidence":{"replica":' .. text(replica)
        .. ',"role":' .. text(role) .. ',"state":' .. text(state) .. '}', at)
end

-- What is said with a lease. One that would hold for longer than leases do is none: Redis's clock went back.
local function leased(name)
    if redis.call('PTTL', name) > 3600000 then
        redis.call('DEL', name)
    end
    return redis.call('GET', name)
end

-- Replicas whose lease holds, by id; those whose lease ran out are forgotten, each with an event.
local function living(id, at)
    local alive = {}
    local known = redis.call('HGETALL', key('replicas', id))
    for i = 1, #known, 2 do
        local lease = leased(key('replica', id, known[i]))
        if lease then
            alive[#alive + 1] = cjson.decode(lease)
        else
            local last = cjson.decode(known[i + 1])
            redis.call('HDEL', key('replicas', id), known[i])
            say_replica(id, known[i], last.role, 'failed', 'It is gone: its lease ran out.', at)
        end
    end
    return alive
end

-- What the agents that have places of the deployment say of them.
local function reports(id)
    local found = {}
    for _, agent in ipairs(redis.call('HKEYS', key('agents', id))) do
        local said = leased(key('agent', id, agent))
        if said then
            found[#found + 1] = cjson.decode(said)
        else
            redis.call('HDEL', key('agents', id), agent)
        end
    end
    return found
end

-- One report of all; nil if there is none. The fault of an agent that calls it failed goes first.
local function summed(said)
    local sum = {processes = 0, fault = '', failed = false}
    for _, report in ipairs(said) do
        sum.processes = sum.processes + report.processes
        if report.fault ~= '' and (sum.fault == '' or report.failed and not sum.failed) then
            sum.fault = report.fault
        end
        sum.failed = sum.failed or report.failed
    end
    return #said > 0 and sum or nil
end

local function because(reason)
    if reason and reason ~= '' then
        return ': ' .. reason
    end
    return '.'
end

-- State and reason that the deployment has by what is known of it.
local function derive(id, alive, agent)
    local wanted = held(id, 'replicas')
    local ready, said, degraded = 0, '', ''
    for _, replica in ipairs(alive) do
        if replica.role == 'serve' then
            if replica.state == 'ready' then
                ready = ready + 1
            elseif replica.state == 'degraded' then
                ready = ready + 1
                degraded = replica.id .. ' is degraded' .. because(replica.reason)
            elseif replica.reason ~= '' then
                said = replica.reason
            end
        elseif replica.state == 'failed' or replica.state == 'degraded' then
            degraded = 'The ' .. replica.role .. ' process is ' .. replica.state .. because(replica.reason)
        end
    end
    if redis.call('HGET', key('deployment', id), 'draining') then
        return 'draining', 'It is being deleted; processes still running: ' .. math.max(#alive, agent and agent.processes or 0) .. '.'
    end
    local fault = agent and agent.fault or ''
    if ready >= wanted then
        if degraded ~= '' then
            return 'degraded', degraded
        end
        if fault ~= '' then
            return 'degraded', fault
        end
        return 'ready', ''
    end
    if agent and agent.failed and ready == 0 then
        return 'failed', fault
    end
    local count = ready .. ' of ' .. wanted .. (wanted == 1 and ' replica is ready' or ' replicas are ready')
    local why = fault ~= '' and fault or said
    if why == '' and not agent then
        why = 'no agent runs it yet; `hemostat serve` does'
    end
    if ready > 0 then
        return 'degraded', count .. because(why)
    end
    local begun = redis.call('HGET', key('deployment', id), 'was_ready')
    return begun and 'degraded' or 'starting', count .. because(why)
end

-- Brings the state to what is known; a change is one event. Forgets a deployment that is deleted and has no process
-- left. Answers the state, or 'forgotten'.
local function settle(id)
    local at = now()
    local alive = living(id, at)
    local agent = summed(reports(id))
    local draining = redis.call('HGET', key('deployment', id), 'draining')
    if draining and #alive == 0 and (not agent or agent.processes == 0) then
        emit(id, 'deleted', ',"reason":"No process of it is left."', at)
        redis.call('HDEL', PREFIX .. 'names', held(id, 'name'))
        -- The idempotency key is free again, unless it expired and stands for something else by now.
        local hold = redis.call('HGET', key('deployment', id), 'hold')
        if hold and redis.call('HGET', hold, 'job') == id then
            redis.call('DEL', hold)
        end
        redis.call('ZREM', PREFIX .. 'index', id)
        for _, name in ipairs(redis.call('HKEYS', key('agents', id))) do
            redis.call('DEL', key('agent', id, name))
        end
        redis.call('DEL', key('deployment', id), key('replicas', id), key('agents', id), key('shadow', id))
        for _, sample in ipairs(redis.call('LRANGE', key('queue', id), 0, -1)) do
            redis.call('DEL', key('sample', id, sample))
        end
        redis.call('DEL', key('queue', id))
        redis.call('EXPIRE', key('events', id), 3600)
        note_disk(0)
        return 'forgotten'
    end
    local state, reason = derive(id, alive, agent)
    local was = held(id, 'state')
    if was ~= state or held(id, 'reason') ~= reason then
        set(id, 'state', state)
        set(id, 'reason', reason)
        redis.call('HSET', key('deployment', id), 'updated_at', at)
        if was ~= state then
            if state == 'ready' then
                redis.call('HSET', key('deployment', id), 'was_ready', '1')
            end
            emit(id, 'state', ',"reason":' .. text(reason) .. ',"evidence":{"state":' .. text(state)
                .. ',"previous_state":' .. (was and text(was) or 'null') .. '}', at)
        end
    end
    return state
end

-- Whether what the caller counted of all deployments is outdated: `turn` is that of its count ('': nothing was counted).
local function outdated(turn)
    return turn ~= '' and turn ~= (redis.call('GET', PREFIX .. 'turn') or 'none')
end

-- More memory is asked for: every count that began before is outdated.
local function count_again(id)
    redis.call('SET', PREFIX .. 'turn', id .. ' ' .. now(), 'EX', 3600)
end
