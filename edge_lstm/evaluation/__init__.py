"""What a detector is worth: metrics of scores, alarms and forecasts, and the simple methods to beat."""
