package main

import _ "golang.org/x/oauth2/google/externalaccount"

func main() {}
