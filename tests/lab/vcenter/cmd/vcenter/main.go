// Command vcenter is the lab's vCenter: see README.md of this module.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"lab.velero-plugin-for-vsphere/vcenter/internal/control"
	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
	"lab.velero-plugin-for-vsphere/vcenter/internal/gate"
	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

type options struct {
	listen, control, store, cert, key string
	login                             double.Login
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8989", "address of the vSphere services (https)")
	flag.StringVar(&o.control, "control", "127.0.0.1:8990", "address of the control requests (http)")
	flag.StringVar(&o.store, "store", "", "folder of the disks")
	flag.StringVar(&o.cert, "cert", "", "certificate file (PEM)")
	flag.StringVar(&o.key, "key", "", "key file (PEM)")
	flag.StringVar(&o.login.User, "user", "administrator@vsphere.local", "the account's name")
	flag.StringVar(&o.login.Password, "password", "", "the account's password")
	passwordFile := flag.String("password-file", "", "file with the account's password, in place of --password")
	flag.Parse()
	if *passwordFile != "" {
		text, err := os.ReadFile(*passwordFile)
		if err != nil {
			log.Fatalf("read the password: %s", err)
		}
		o.login.Password = strings.TrimRight(string(text), "\r\n")
	}
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	if o.store == "" || o.cert == "" || o.key == "" || o.login.Password == "" {
		return errors.New("--store, --cert, --key and --password (or --password-file) are needed")
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	disks, err := store.Open(o.store)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	certificate, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	vcenter, err := double.New(disks, new(rules.Set), o.login)
	if err != nil {
		return err
	}
	defer vcenter.Close()
	front := gate.New(vcenter)
	services, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	controls, err := net.Listen("tcp", o.control)
	if err != nil {
		return err
	}
	secure := tls.NewListener(services, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}})
	log.Printf("vSphere services at https://%s, control at http://%s, disks in %s", services.Addr(), controls.Addr(), o.store)
	return serve(stop, map[net.Listener]http.Handler{secure: front, controls: control.New(vcenter, front)})
}

// serve answers until it is told to stop, or one of the listeners fails.
func serve(stop context.Context, listeners map[net.Listener]http.Handler) error {
	failed := make(chan error, len(listeners))
	for listener, handler := range listeners {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		go func() { failed <- server.Serve(listener) }()
		defer server.Close()
	}
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
		return nil
	}
}
