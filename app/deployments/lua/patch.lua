-- KEYS: deployment. ARGV: id, turn or '', then fields and values (JSON). Answers 'done', 'missing', 'draining', or
-- 'again' where replicas are added and `turn` is outdated.
-- What is as it was is no change, so that there is nothing to say.
local id = ARGV[1]
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
if redis.call('HGET', KEYS[1], 'draining') then
    return 'draining'
end
for i = 3, #ARGV, 2 do
    if ARGV[i] == 'replicas' and tonumber(ARGV[i + 1]) > held(id, 'replicas') then
        if outdated(ARGV[2]) then
            return 'again'
        end
        count_again(id)
    end
end
local at = now()
local active, previous = held(id, 'active_version'), held(id, 'previous_version')
local changed = {}
for i = 3, #ARGV, 2 do
    local field, value = ARGV[i], ARGV[i + 1]
    local old = redis.call('HGET', KEYS[1], field)
    if old ~= value then
        redis.call('HSET', KEYS[1], field, value)
        if field == 'calibration' and value == '"off"' then
            set(id, 'before_off', {active = active, previous = previous, fit_reason = held(id, 'fit_reason')})
            set(id, 'fit_reason', 'calibration is off')
            if active ~= 'identity' then
                set(id, 'previous_version', active)
                set(id, 'active_version', 'identity')
                redis.call('HSET', KEYS[1], 'activated_at', at)
            end
        elseif field == 'calibration' and old == '"off"' then
            local before = before_off(id)
            redis.call('HDEL', KEYS[1], 'before_off')
            set(id, 'fit_reason', before.fit_reason or '')
            set(id, 'previous_version', before.previous)
            if before.active ~= active then
                set(id, 'active_version', before.active)
                redis.call('HSET', KEYS[1], 'activated_at', at)
            end
        end
        -- Evidence is flat: what is a list or an object is named only.
        local shown = string.match(value, '^[%[{]') and '"changed"' or value
        changed[#changed + 1] = text(field) .. ':' .. shown
    end
end
if #changed == 0 then
    return 'done'
end
redis.call('HSET', KEYS[1], 'updated_at', at)
local kind = redis.call('HGET', KEYS[1], 'calibration') == '"frozen"' and string.find(table.concat(changed), '"calibration"')
    and 'frozen' or 'changed'
local rest = ',"version":' .. redis.call('HGET', KEYS[1], 'active_version')
    .. ',"evidence":{' .. table.concat(changed, ',') .. '}'
if held(id, 'active_version') ~= active then
    rest = rest .. ',"previous":' .. text(active)
end
emit(id, kind, rest, at)
settle(id)
return 'done'
