"""How a caller proves itself: the gateway, on every call, cached answer or not."""
