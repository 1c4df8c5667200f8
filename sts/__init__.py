"""A token service that stands beside an API gateway: any credential in, a short-lived internal JWT out."""
