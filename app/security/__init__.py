"""Who may call: API keys, host names, rate and body limits. Pure ASGI, so that streams pass through untouched."""
