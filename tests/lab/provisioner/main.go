// Command provisioner stands in for the CSI driver's controller in the lab: a
// claim of a StorageClass with our provisioner becomes a volume of the
// container storage service, and a PersistentVolume that names it.
//
// It is a client like any other: it knows the API server and a vCenter, and
// nothing of how the lab's vCenter is made.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

type options struct {
	kubeconfig, cluster string
	vcenter             vcenterOptions
	passwordFile        string
}

func main() {
	var o options
	klog.InitFlags(nil)
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server")
	flag.StringVar(&o.cluster, "cluster-id", "lab", "the cluster that owns the volumes, as the storage service knows it")
	flag.StringVar(&o.vcenter.url, "vcenter", "", "address of vCenter, as in https://127.0.0.1:8989")
	flag.StringVar(&o.vcenter.user, "user", "", "account at vCenter")
	flag.StringVar(&o.passwordFile, "password-file", "", "file with the account's password")
	flag.StringVar(&o.vcenter.caFile, "ca-file", "", "file with the authority that signed vCenter's certificate (PEM)")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.kubeconfig == "" || o.vcenter.url == "" || o.vcenter.user == "" || o.passwordFile == "" || o.vcenter.caFile == "" {
		return errors.New("--kubeconfig, --vcenter, --user, --password-file and --ca-file are needed")
	}
	password, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	o.vcenter.password = strings.TrimRight(string(password), "\r\n")
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	cluster, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	storage := &provisioner{storage: newVcenter(o.vcenter), cluster: o.cluster, user: o.vcenter.user}
	controller.NewProvisionController(stop, cluster, driverName, storage,
		controller.LeaderElection(false),
		controller.AddFinalizer(true), // as the real one does, so that no volume outlives its PersistentVolume
		controller.MetricsPort(0),
		controller.FailedProvisionThreshold(0), // never give up: tests make vCenter fail for a while
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 5*time.Second)),
	).Run(stop)
	return nil
}
