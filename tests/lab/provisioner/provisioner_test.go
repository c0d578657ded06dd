package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func TestClaimBecomesAVolumeAndGoesAgain(t *testing.T) {
	lab := startVcenter(t)
	p := lab.provisioner()
	volume, _, err := p.Provision(t.Context(), claim("shop", "1500k", v1.PersistentVolumeFilesystem))
	must(t, err)
	source := volume.Spec.CSI
	if source.Driver != driverName || source.VolumeAttributes["type"] != "vSphere CNS Block Volume" || source.FSType != "ext4" {
		t.Errorf("the volume's source is %+v", source)
	}
	capacity := volume.Spec.Capacity[v1.ResourceStorage]
	disks := lab.disks()
	if len(disks) != 1 || disks[0].ID != source.VolumeHandle || disks[0].Name != volume.Name || disks[0].CapacityBytes != 2*mib || capacity.Value() != 2*mib {
		t.Errorf("the disks are %+v, the volume has %s", disks, capacity.String())
	}
	must(t, p.Delete(t.Context(), volume))
	if disks := lab.disks(); len(disks) != 0 {
		t.Errorf("these disks are left: %+v", disks)
	}
	must(t, p.Delete(t.Context(), volume)) // as after a crash between the disk and the object
}

func TestLostReplyMakesNoSecondVolume(t *testing.T) {
	lab := startVcenter(t)
	p := lab.provisioner()
	lab.tell("/faults", `{"method":"CnsCreateVolume","lostReply":true,"count":1}`)
	options := claim("shop", "4Mi", v1.PersistentVolumeFilesystem)
	_, state, err := p.Provision(t.Context(), options)
	if err == nil || state != controller.ProvisioningInBackground {
		t.Fatalf("the lost reply gave state %s and %v", state, err)
	}
	volume, _, err := p.Provision(t.Context(), options)
	must(t, err)
	if disks := lab.disks(); len(disks) != 1 || disks[0].ID != volume.Spec.CSI.VolumeHandle {
		t.Errorf("the disks are %+v", disks)
	}
}

func TestLostSessionIsRenewed(t *testing.T) {
	lab := startVcenter(t)
	p := lab.provisioner()
	_, _, err := p.Provision(t.Context(), claim("first", "1Mi", v1.PersistentVolumeFilesystem))
	must(t, err)
	lab.tell("/sessions/expire", "")
	_, _, err = p.Provision(t.Context(), claim("second", "1Mi", v1.PersistentVolumeBlock))
	must(t, err)
	if disks := lab.disks(); len(disks) != 2 {
		t.Errorf("the disks are %+v", disks)
	}
}

func TestAttachedVolumeIsNotDeleted(t *testing.T) {
	lab := startVcenter(t)
	p := lab.provisioner()
	volume, _, err := p.Provision(t.Context(), claim("shop", "1Mi", v1.PersistentVolumeFilesystem))
	must(t, err)
	lab.tell("/attach", fmt.Sprintf(`{"disk":%q,"vm":"node-a"}`, volume.Spec.CSI.VolumeHandle))
	if err := p.Delete(t.Context(), volume); err == nil {
		t.Error("deleting an attached volume was called a success")
	}
	if disks := lab.disks(); len(disks) != 1 {
		t.Errorf("the disks are %+v", disks)
	}
}

func TestClaimWithASelectorIsRefused(t *testing.T) {
	options := claim("picky", "1Mi", v1.PersistentVolumeFilesystem)
	options.PVC.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "mine"}}
	p := &provisioner{storage: untouchable{t}}
	if _, state, err := p.Provision(t.Context(), options); err == nil || state != controller.ProvisioningFinished {
		t.Errorf("state %s, %v", state, err)
	}
}

// untouchable is storage that nobody may ask for anything.
type untouchable struct{ t *testing.T }

func (u untouchable) create(context.Context, wantedVolume) (string, error) {
	u.t.Error("a volume was made")
	return "", nil
}

func (u untouchable) remove(context.Context, string) error {
	u.t.Error("a volume was deleted")
	return nil
}

func claim(name, size string, mode v1.PersistentVolumeMode) controller.ProvisionOptions {
	return controller.ProvisionOptions{
		PVName:       "pvc-" + name,
		StorageClass: &storagev1.StorageClass{Provisioner: driverName},
		PVC: &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": "shop"}},
			Spec: v1.PersistentVolumeClaimSpec{
				AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}, VolumeMode: &mode,
				Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}},
			},
		},
	}
}

// vcenterProcess is the lab's vCenter, built from the folder beside this one.
type vcenterProcess struct {
	t             *testing.T
	address, ctrl string
	ca            string
}

type shownDisk struct {
	ID, Name      string
	CapacityBytes int64
}

func startVcenter(t *testing.T) *vcenterProcess {
	t.Helper()
	folder := t.TempDir()
	binary := filepath.Join(folder, "vcenter")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/vcenter")
	build.Dir = filepath.Join("..", "vcenter")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the vCenter double: %s\n%s", err, output)
	}
	lab := &vcenterProcess{t: t, address: freeAddress(t), ctrl: freeAddress(t), ca: certificate(t, folder)}
	process := exec.Command(binary, "--listen", lab.address, "--control", lab.ctrl, "--store", filepath.Join(folder, "store"),
		"--cert", lab.ca, "--key", filepath.Join(folder, "key.pem"), "--user", "csi", "--password", "secret")
	process.Stderr = t.Output()
	must(t, process.Start())
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + lab.ctrl + "/healthz")
		if err == nil {
			response.Body.Close()
			return lab
		}
		if time.Now().After(deadline) {
			t.Fatalf("the vCenter double never came up: %s", err)
		}
	}
}

func (l *vcenterProcess) provisioner() *provisioner {
	options := vcenterOptions{url: "https://" + l.address, user: "csi", password: "secret", caFile: l.ca}
	return &provisioner{storage: newVcenter(options), cluster: "lab", user: "csi"}
}

func (l *vcenterProcess) disks() []shownDisk {
	l.t.Helper()
	response, err := http.Get("http://" + l.ctrl + "/disks")
	must(l.t, err)
	defer response.Body.Close()
	var disks []shownDisk
	must(l.t, json.NewDecoder(response.Body).Decode(&disks))
	return disks
}

func (l *vcenterProcess) tell(path, body string) {
	l.t.Helper()
	response, err := http.Post("http://"+l.ctrl+path, "application/json", bytes.NewBufferString(body))
	must(l.t, err)
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(response.Body)
		l.t.Fatalf("%s: %d %s", path, response.StatusCode, text)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// certificate writes a certificate that is its own authority, and its key.
func certificate(t *testing.T, folder string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	path := filepath.Join(folder, "cert.pem")
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
