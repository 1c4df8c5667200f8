"""X.509: roots, paths, names, CRLs and OCSP."""
