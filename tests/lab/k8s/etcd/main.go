// Command etcd is the stock etcd server, built beside the Kubernetes programs
// from the version that Kubernetes itself depends on.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
