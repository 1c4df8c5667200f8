"""The commands of `sts`; `main` lists them."""
