"""What a decision asks others: rows of tables and OPA."""
