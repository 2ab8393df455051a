"""The gateway: rows of many streams in, scores and alarms out, over MQTT and HTTP."""
