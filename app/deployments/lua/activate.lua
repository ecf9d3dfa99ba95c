-- KEYS: deployment. ARGV: id, 'promote' or 'rollback', version or '', token, '1' where a person asked, reason (JSON),
-- evidence (JSON), the version that it is to replace or ''. Answers 'done', 'missing', 'draining', 'frozen', 'off',
-- 'nothing', or 'other' where another version than that is active by now.
local id, what, version = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
if redis.call('HGET', KEYS[1], 'draining') then
    return 'draining'
end
if redis.call('EXISTS', key('token', id, ARGV[4])) == 1 then
    return 'done'
end
local mode = held(id, 'calibration')
local active = held(id, 'active_version')
if what == 'rollback' and version == '' then
    version = held(id, 'previous_version') or 'identity'
end
if mode == 'frozen' and ARGV[5] ~= '1' then
    return 'frozen'
end
if mode == 'off' and version ~= 'identity' then
    return 'off'
end
if version == active then
    return 'nothing'
end
if ARGV[8] ~= '' and ARGV[8] ~= active then
    return 'other'
end
repeated(id, ARGV[4])
local at = now()
set(id, 'active_version', version)
-- What was rolled back from is never what a further rollback goes to.
set(id, 'previous_version', what == 'promote' and active or nil)
redis.call('HINCRBY', KEYS[1], what == 'promote' and 'promotions' or 'rollbacks', 1)
redis.call('HSET', KEYS[1], 'activated_at', at, 'updated_at', at)
if what == 'promote' then
    set(id, 'fit_reason', '')
end
emit(id, what == 'promote' and 'promoted' or 'rolled_back', ',"reason":' .. ARGV[6] .. ',"version":' .. text(version)
    .. ',"previous":' .. text(active) .. ',"evidence":' .. ARGV[7], at)
return 'done'
