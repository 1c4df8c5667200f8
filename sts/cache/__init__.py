"""What may be lost: tokens that were minted already, kept for the same request."""
