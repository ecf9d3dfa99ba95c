-- KEYS: deployment. ARGV: id, 'start', 'queued' or 'end', job or '', event type, reason (JSON), version or '',
-- evidence (JSON). 'start' answers the job that fits it: ARGV's, or the one that was there before. 'queued' keeps that
-- the job was made, so that it is not made again when its record is gone. Both others answer 'done'. Or 'missing'.
local id = ARGV[1]
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
local at = now()
if ARGV[2] == 'start' then
    local before = held(id, 'fit_job')
    if before then
        return before
    end
    set(id, 'fit_job', ARGV[3])
    set(id, 'fit_reason', '')
    redis.call('HSET', KEYS[1], 'updated_at', at)
    emit(id, 'fit_started', ',"evidence":{"job":' .. text(ARGV[3]) .. '}', at)
    return ARGV[3]
end
if ARGV[2] == 'queued' then
    redis.call('HSET', KEYS[1], 'fit_queued', ARGV[3])
    return 'done'
end
local mark = ARGV[4] .. ARGV[5] .. ARGV[6]
if redis.call('HGET', KEYS[1], 'fit_ended') == mark then
    return 'done'
end
redis.call('HSET', KEYS[1], 'fit_ended', mark, 'updated_at', at)
if ARGV[4] == 'refused' then
    if held(id, 'calibration') == 'off' then -- which is the reason until it comes back
        local before = before_off(id)
        before.fit_reason = cjson.decode(ARGV[5])
        set(id, 'before_off', before)
    else
        redis.call('HSET', KEYS[1], 'fit_reason', ARGV[5])
    end
end
emit(id, ARGV[4], ',"reason":' .. ARGV[5] .. (ARGV[6] ~= '' and ',"version":' .. text(ARGV[6]) or '')
    .. ',"evidence":' .. ARGV[7], at)
return 'done'
