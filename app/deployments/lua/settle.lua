-- KEYS: deployment. ARGV: id. Answers the state, 'forgotten' or 'missing'.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 'missing'
end
return settle(ARGV[1])
