"""What came in from outside: one kind of credential, one file. A kind only extracts and proves; it judges nothing."""
