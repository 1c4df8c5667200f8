"""The HTTP server: gunicorn's master, the worker, and the WSGI application. The only code on gunicorn's inside."""
