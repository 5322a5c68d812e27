module github.com/sluice-gateway/sluice/test

go 1.26.0

require (
	github.com/traefik/yaegi v0.16.1
	golang.org/x/mod v0.42.0
	gopkg.in/yaml.v3 v3.0.1
)

replace github.com/sluice-gateway/sluice => ../
