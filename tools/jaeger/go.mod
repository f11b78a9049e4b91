// What tools/programs.sh builds Jaeger from. Jaeger's own go.mod replaces a module, so that `go install` refuses it.
module tokenbudget/jaeger

go 1.24.6

require github.com/jaegertracing/jaeger v1.76.0

replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
