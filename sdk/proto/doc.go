// Package proto is the protocol between the gateway and its plugins: postern.proto and the
// files beside it, which are the contract for every language, the code generated from
// them, and the constants of the handshake. README.md says how a plugin in another language
// starts, lives and ends. The package decides nothing and converts nothing.
//
// To generate the code again, with protoc and the versions of the generators that go.mod
// names (a test compares the result with what is committed):
//
//	go build -o $BIN/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
//	PATH=$BIN:$PATH protoc -I sdk/proto --go_out=sdk/proto --go_opt=paths=source_relative \
//	    --go-grpc_out=sdk/proto --go-grpc_opt=paths=source_relative sdk/proto/*.proto
package proto
