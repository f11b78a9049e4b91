//go:build needs

// Package needs names the program that is built here.
package needs

import _ "github.com/jaegertracing/jaeger/cmd/jaeger"
