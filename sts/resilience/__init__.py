"""What keeps trouble outside from spreading: a breaker for what is down, places shared fairly by those that wait."""
