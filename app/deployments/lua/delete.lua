-- KEYS: deployment. ARGV: id, reason (JSON). Marks it; it is forgotten when no process of it is left.
-- Answers the state then, 'forgotten' or 'missing'.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
redis.call('HSET', KEYS[1], 'draining', '1')
return settle(ARGV[1])
