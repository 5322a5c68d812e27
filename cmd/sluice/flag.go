package main

import (
	"errors"
	"strconv"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// Flags that refuse the value which, unwritten, means their default: whoever
// writes --gateways=0, or --redis=$REDIS where that is not set, means another.

// filled is a flag that is not empty once it is written.
type filled string

func text(into *string, standard string) *filled {
	*into = standard
	return (*filled)(into)
}

func (f *filled) String() string { return string(*f) }
func (f *filled) Type() string   { return "string" }

func (f *filled) Set(value string) error {
	if value == "" {
		return errors.New("it is empty; leave the flag out, or write a value")
	}
	*f = filled(value)
	return nil
}

// count is a number of gateways.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }
func (c *count) Type() string   { return "int" }

func (c *count) Set(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || !stack.GatewaysFit(n) {
		return errors.New("write a number from 1 to " + strconv.Itoa(stack.MaxGateways))
	}
	*c = count(n)
	return nil
}
