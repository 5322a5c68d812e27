module github.com/sluice-gateway/sluice/test

go 1.26.0

require (
	github.com/mitchellh/mapstructure v1.5.1-0.20231216201459-8508981c8b6c
	github.com/redis/go-redis/v9 v9.23.0
	github.com/sluice-gateway/sluice v0.0.0-00010101000000-000000000000
	github.com/traefik/paerser v0.2.2
	github.com/traefik/yaegi v0.16.1
	golang.org/x/mod v0.42.0
	gopkg.in/yaml.v3 v3.0.1
)

require (
	github.com/BurntSushi/toml v1.6.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/sluice-gateway/sluice => ../
