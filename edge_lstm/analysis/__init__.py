"""What a recording is made of, before any network: clock, channels, memory, redundancy, forecasts, advice."""
