-- KEYS: job. ARGV: id, attempt, status, error JSON or '', then fields and values of the result
-- Answers the status that the job then has, or 'stale'. A job that is being cancelled ends as cancelled, whatever else.
local held = redis.call('HMGET', KEYS[1], 'status', 'attempt')
local status = held[1]
if not status or held[2] ~= ARGV[2] or status == 'queued' then
    return 'stale'
end
if TERMINAL[status] then
    return status
end
local to, error_json = ARGV[3], ARGV[4]
if status == 'cancelling' then
    to, error_json = 'cancelled', ''
end
if to == ARGV[3] then
    for i = 5, #ARGV, 2 do
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    end
end
finish(ARGV[1], status, to, held[2], error_json)
return to
