"""HTTP and WebSocket: no decisions here."""
