"""What a device does by itself: feeds, policy, conditions, telemetry, the agent."""
