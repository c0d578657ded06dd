// Package tests drives the double with govmomi's own clients, which know
// nothing of how it is made.
package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/vmware/govmomi/cns"
	cnstypes "github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm"

	"lab.velero-plugin-for-vsphere/vcenter/internal/control"
	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
	"lab.velero-plugin-for-vsphere/vcenter/internal/gate"
	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

const (
	user     = "backup@vsphere.local"
	password = "correct horse & <battery>"
	mib      = 1 << 20
)

// lab is a running double.
type lab struct {
	t       *testing.T
	store   string
	vsphere *httptest.Server
	control *httptest.Server
	stop    func()
}

func start(t *testing.T, folder string) *lab {
	t.Helper()
	disks, err := store.Open(folder)
	must(t, err)
	vcenter, err := double.New(disks, new(rules.Set), double.Login{User: user, Password: password})
	must(t, err)
	front := gate.New(vcenter)
	l := &lab{t: t, store: folder, vsphere: httptest.NewTLSServer(front), control: httptest.NewServer(control.New(vcenter, front))}
	stopped := false
	l.stop = func() {
		if !stopped {
			stopped = true
			l.vsphere.Close()
			l.control.Close()
			vcenter.Close()
		}
	}
	t.Cleanup(l.stop)
	return l
}

// client is govmomi, logged in.
type client struct {
	*vim25.Client
	vslm *vslm.GlobalObjectManager
	cns  *cns.Client
	lab  *lab
}

func (l *lab) connect() (*vim25.Client, error) {
	address, err := url.Parse(l.vsphere.URL + "/sdk")
	must(l.t, err)
	transport := soap.NewClient(address, true)
	vim, err := vim25.NewClient(background(l.t), transport)
	if err == nil {
		err = vim.UseServiceVersion()
	}
	return vim, err
}

func (l *lab) login() *client {
	l.t.Helper()
	vim, err := l.connect()
	must(l.t, err)
	must(l.t, session.NewManager(vim).Login(background(l.t), url.UserPassword(user, password)))
	catalog, err := vslm.NewClient(background(l.t), vim)
	must(l.t, err)
	volumes, err := cns.NewClient(background(l.t), vim)
	must(l.t, err)
	return &client{Client: vim, vslm: vslm.NewGlobalObjectManager(catalog), cns: volumes, lab: l}
}

// volume makes a volume as the CSI driver does, and returns its disk's id.
func (c *client) volume(name string, capacityMiB int64) string {
	c.lab.t.Helper()
	task, err := c.cns.CreateVolume(background(c.lab.t), []cnstypes.CnsVolumeCreateSpec{{
		Name: name, VolumeType: string(cnstypes.CnsVolumeTypeBlock),
		Metadata: cnstypes.CnsVolumeMetadata{
			ContainerCluster: cnstypes.CnsContainerCluster{ClusterType: "KUBERNETES", ClusterId: "lab", VSphereUser: user, ClusterFlavor: "VANILLA"},
			EntityMetadata: []cnstypes.BaseCnsEntityMetadata{&cnstypes.CnsKubernetesEntityMetadata{
				CnsEntityMetadata: cnstypes.CnsEntityMetadata{EntityName: name, ClusterID: "lab", Labels: []types.KeyValue{{Key: "app", Value: "shop"}}},
				EntityType:        "PERSISTENT_VOLUME",
			}},
		},
		BackingObjectDetails: &cnstypes.CnsBlockBackingDetails{CnsBackingObjectDetails: cnstypes.CnsBackingObjectDetails{CapacityInMb: capacityMiB}},
	}})
	must(c.lab.t, err)
	result := c.result(task.Reference())
	return result.GetCnsVolumeOperationResult().VolumeId.Id
}

// result waits for a task of the storage service and returns its one result,
// which must not be a failure.
func (c *client) result(task types.ManagedObjectReference) cnstypes.BaseCnsVolumeOperationResult {
	c.lab.t.Helper()
	result := c.outcome(task)
	if fault := result.GetCnsVolumeOperationResult().Fault; fault != nil {
		c.lab.t.Fatalf("the volume operation failed: %T %s", fault.Fault, fault.LocalizedMessage)
	}
	return result
}

func (c *client) outcome(task types.ManagedObjectReference) cnstypes.BaseCnsVolumeOperationResult {
	c.lab.t.Helper()
	info, err := waitForTask(background(c.lab.t), c.Client, task)
	must(c.lab.t, err)
	batch, ok := info.Result.(cnstypes.CnsVolumeOperationBatchResult)
	if !ok || len(batch.VolumeResults) != 1 {
		c.lab.t.Fatalf("the task's result is %#v", info.Result)
	}
	return batch.VolumeResults[0]
}

func (c *client) snapshot(disk, description string) string {
	c.lab.t.Helper()
	task, err := c.vslm.CreateSnapshot(background(c.lab.t), types.ID{Id: disk}, description)
	must(c.lab.t, err)
	result, err := task.Wait(background(c.lab.t), time.Minute)
	must(c.lab.t, err)
	return result.(types.ID).Id
}

// tell sends a control request and expects success.
func (l *lab) tell(method, path string, body any, into any) {
	l.t.Helper()
	status, text := l.ask(method, path, body)
	if status >= 300 {
		l.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if into != nil {
		must(l.t, json.Unmarshal(text, into))
	}
}

func (l *lab) ask(method, path string, body any) (int, []byte) {
	l.t.Helper()
	var content bytes.Buffer
	if body != nil {
		must(l.t, json.NewEncoder(&content).Encode(body))
	}
	request, err := http.NewRequest(method, l.control.URL+path, &content)
	must(l.t, err)
	response, err := http.DefaultClient.Do(request)
	must(l.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(l.t, err)
	return response.StatusCode, text
}

func (l *lab) disk(id string) control.Disk {
	l.t.Helper()
	var disk control.Disk
	l.tell("GET", "/disks/"+id, nil, &disk)
	return disk
}

// write puts a pattern into a disk's file, at an offset in bytes.
func (l *lab) write(path string, offset int64, pattern byte, length int) {
	l.t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(l.t, err)
	defer file.Close()
	_, err = file.WriteAt(bytes.Repeat([]byte{pattern}, length), offset)
	must(l.t, err)
}

func (l *lab) holds(path string, offset int64, pattern byte, length int) bool {
	l.t.Helper()
	file, err := os.Open(path)
	must(l.t, err)
	defer file.Close()
	content := make([]byte, length)
	_, err = file.ReadAt(content, offset)
	must(l.t, err)
	return bytes.Equal(content, bytes.Repeat([]byte{pattern}, length))
}

func background(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
