package main

import (
	"github.com/spf13/cobra"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

// networkPoliciesCommand enforces NetworkPolicies: the first packet of each connection of a pod that one selects waits
// in a queue of the kernel's for its verdict. The project's own main has no kubeconfig, it runs as a pod.
func networkPoliciesCommand() *cobra.Command {
	var kubeconfig, node string
	cmd := &cobra.Command{
		Use:  "kube-network-policies",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
			config.ContentType = "application/vnd.kubernetes.protobuf"
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			factory := informers.NewSharedInformerFactory(client, 0)
			core := factory.Core().V1()
			controller, err := networkpolicy.NewController(
				client, factory.Networking().V1().NetworkPolicies(), core.Namespaces(), core.Pods(),
				nil, nil, nil, nil, networkpolicy.Config{NodeName: node},
			)
			if err != nil {
				return err
			}
			factory.Start(cmd.Context().Done())
			return controller.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig of the API server")
	cmd.Flags().StringVar(&node, "hostname-override", "", "name of the node whose pods are guarded")
	return cmd
}
