// Package dynconf decodes the configuration of one middleware as Traefik v3.7.13
// does (pkg/plugins/middlewareyaegi.go).
package dynconf

import "github.com/mitchellh/mapstructure"

// Decode fills what CreateConfig has made from the map that a provider hands over.
func Decode(raw map[string]any, onto any) error {
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		DecodeHook:       mapstructure.StringToSliceHookFunc(","),
		WeaklyTypedInput: true,
		Result:           onto,
	})
	if err != nil {
		return err
	}
	return decoder.Decode(raw)
}
