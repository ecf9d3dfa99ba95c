-- KEYS: job. ARGV: id. The owner's wish. Answers the status then, or 'missing'.
local held = redis.call('HMGET', KEYS[1], 'status', 'attempt')
local status = held[1]
if not status then
    return 'missing'
end
if status == 'queued' then
    finish(ARGV[1], status, 'cancelled', held[2], '')
    return 'cancelled'
end
if status == 'running' then
    local at = now()
    move(ARGV[1], status, 'cancelling')
    redis.call('HSET', KEYS[1], 'updated_at', at)
    emit_state(ARGV[1], 'cancelling', held[2], at)
    return 'cancelling'
end
return status
