package tests

import (
	"errors"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	cnstypes "github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm"
	vslmmethods "github.com/vmware/govmomi/vslm/methods"
	vslmtypes "github.com/vmware/govmomi/vslm/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/gate"
	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
)

var changeID = regexp.MustCompile(`^[0-9a-f]{2}( [0-9a-f]{2}){7}-[0-9a-f]{2}( [0-9a-f]{2}){7}/\d+$`)

func TestWrongPasswordIsRefusedAndCounted(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	vim, err := lab.connect()
	must(t, err)
	for _, wrong := range []*url.Userinfo{url.UserPassword(user, "guess"), url.UserPassword("root", password)} {
		if err := session.NewManager(vim).Login(background(t), wrong); !isSOAPFault[types.InvalidLogin](err) {
			t.Errorf("logging in as %s: %v", wrong.Username(), err)
		}
	}
	lab.login()
	var logins gate.Logins
	lab.tell("GET", "/logins", nil, &logins)
	if logins != (gate.Logins{OK: 1, Refused: 2}) {
		t.Errorf("counted %+v", logins)
	}
}

func TestExpiredSessionIsNotAuthenticatedAnywhere(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	lab.tell("POST", "/sessions/expire", nil, nil)

	_, vslmErr := c.vslm.Retrieve(background(t), types.ID{Id: disk})
	_, cnsErr := c.cns.QueryVolume(background(t), &cnstypes.CnsQueryFilter{})
	_, vimErr := methods.GetCurrentTime(background(t), c.Client)
	for service, err := range map[string]error{"VSLM": vslmErr, "CNS": cnsErr, "vim25": vimErr} {
		if !isSOAPFault[types.NotAuthenticated](err) {
			t.Errorf("%s answered an expired session with %v", service, err)
		}
	}
	must(t, session.NewManager(c.Client).Login(background(t), url.UserPassword(user, password)))
	if _, err := c.vslm.Retrieve(background(t), types.ID{Id: disk}); err != nil {
		t.Errorf("after logging in again: %s", err)
	}
	var open []gate.Session
	lab.tell("GET", "/sessions", nil, &open)
	if len(open) != 1 {
		t.Errorf("there are %d sessions", len(open))
	}
	must(t, session.NewManager(c.Client).Logout(background(t)))
	lab.tell("GET", "/sessions", nil, &open)
	if len(open) != 0 {
		t.Errorf("logging out left %d sessions", len(open))
	}
}

func TestVSLMDoesNotTakeTheHTTPCookie(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	catalog, err := vslm.NewClient(background(t), c.Client)
	must(t, err)
	catalog.Cookie = nil // the HTTP cookie is in the jar still
	_, err = vslmmethods.RetrieveContent(background(t), catalog, &vslmtypes.RetrieveContent{This: vslm.ServiceInstance})
	if !isSOAPFault[types.NotAuthenticated](err) {
		t.Errorf("VSLM answered with %v", err)
	}
}

func TestCallFaultsHitOnlyTheirDiskAndOnlySoOften(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	sick, well := c.volume("sick", 1), c.volume("well", 1)
	lab.fault(rules.Rule{Method: "VslmCreateSnapshot_Task", Disk: sick, Fault: "NoPermission", Skip: 1, Count: 1,
		Fields: []byte(`{"privilegeId":"Datastore.FileManagement"}`), Message: "not yours"})

	c.snapshot(well, "")
	c.snapshot(sick, "skipped")
	_, err := c.vslm.CreateSnapshot(background(t), types.ID{Id: sick}, "hit")
	fault, ok := soapFaultOf(err).(types.NoPermission)
	if !ok || fault.PrivilegeId != "Datastore.FileManagement" {
		t.Errorf("the call said %v", err)
	}
	c.snapshot(well, "")
	c.snapshot(sick, "the count is used up")
	if list := c.vslmList(sick); len(list) != 2 {
		t.Errorf("the sick disk has snapshots %v", list)
	}
	var counts map[string]int
	lab.tell("GET", "/calls?disk="+sick, nil, &counts)
	if counts["VslmCreateSnapshot_Task"] != 3 {
		t.Errorf("counted %v", counts)
	}
}

func TestTaskFaultsComeThroughTheTask(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	lab.fault(rules.Rule{Method: "VslmCreateSnapshot_Task", Disk: disk, Where: rules.Task, Fault: "InvalidState", Count: 1})
	lab.fault(rules.Rule{Method: "VslmCreateSnapshot_Task", Disk: disk, Where: rules.Task, Fault: "VslmSyncFault", Count: 1})

	task, err := c.vslm.CreateSnapshot(background(t), types.ID{Id: disk}, "refused")
	must(t, err)
	if _, ok := taskFault(t, task).(types.InvalidState); !ok {
		t.Error("the task did not fail")
	}
	if list := c.vslmList(disk); len(list) != 0 {
		t.Errorf("a failed task left %v", list)
	}
	task, err = c.vslm.CreateSnapshot(background(t), types.ID{Id: disk}, "out of step")
	must(t, err)
	if _, ok := taskFault(t, task).(vslmtypes.VslmSyncFault); !ok {
		t.Error("the task did not fail with VslmSyncFault")
	}
	if list := c.vslmList(disk); len(list) != 1 {
		t.Errorf("the operation behind a VslmSyncFault left %v", list)
	}
	c.snapshot(disk, "all is well again")
}

func TestVolumeFaultsComeInsideTheResult(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	lab.fault(rules.Rule{Method: "CnsDeleteVolume", Disk: disk, Where: rules.Result, Fault: "CnsFault", Count: 1, Fields: []byte(`{"reason":"busy"}`)})
	if fault := c.deleteVolume(disk); !isFault[cnstypes.CnsFault](fault) {
		t.Errorf("the result holds %+v", fault)
	}
	if fault := c.deleteVolume(disk); fault != nil {
		t.Errorf("the second try says %+v", fault)
	}
}

func TestTaskLatencyLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	slow, fast := c.volume("slow", 1), c.volume("fast", 1)
	const latency = 1500 * time.Millisecond
	lab.fault(rules.Rule{Method: "*", Disk: slow, Where: rules.Task, DelayMs: int(latency.Milliseconds())})
	began := time.Now()
	task, err := c.vslm.CreateSnapshot(background(t), types.ID{Id: slow}, "")
	must(t, err)
	c.snapshot(fast, "")
	info, err := task.QueryInfo(background(t))
	must(t, err)
	if time.Since(began) < latency && info.State != vslmtypes.VslmTaskInfoStateRunning {
		t.Errorf("the slow task is %s already", info.State)
	}
	_, err = task.Wait(background(t), time.Minute)
	must(t, err)
	if passed := time.Since(began); passed < latency {
		t.Errorf("the slow task took only %s", passed)
	}
}

func TestLostReplyHappensAllTheSame(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	lab.fault(rules.Rule{Method: "VslmCreateSnapshot_Task", Disk: disk, LostReply: true, Count: 1})
	_, err := c.vslm.CreateSnapshot(background(t), types.ID{Id: disk}, "the token")
	if err == nil || soap.IsSoapFault(err) {
		t.Fatalf("the call said %v", err)
	}
	eventually(t, "the snapshot behind the lost reply", func() bool { return len(lab.disk(disk).Snapshots) == 1 })
}

func TestHTTPStatusComesInPlaceOfAnAnswer(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	id := lab.fault(rules.Rule{Method: "VslmRetrieveVStorageObject", Disk: disk, HTTPStatus: 503})
	for range 2 {
		if _, err := c.vslm.Retrieve(background(t), types.ID{Id: disk}); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("the call said %v", err)
		}
	}
	var all []rules.Rule
	lab.tell("GET", "/faults", nil, &all)
	if len(all) != 1 || all[0].Hits != 2 {
		t.Errorf("the rules are %+v", all)
	}
	lab.tell("DELETE", "/faults/"+id, nil, nil)
	if _, err := c.vslm.Retrieve(background(t), types.ID{Id: disk}); err != nil {
		t.Error(err)
	}
}

func TestErasedDiskIsGoneForEveryService(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	snapshot := c.snapshot(disk, "")
	other := c.snapshot(disk, "other")
	lab.tell("DELETE", "/disks/"+disk+"/snapshots/"+snapshot, nil, nil)
	if list := c.vslmList(disk); len(list) != 1 || list[0] != other {
		t.Errorf("after erasing one snapshot there are %v", list)
	}
	lab.tell("DELETE", "/disks/"+disk, nil, nil)
	if _, err := c.vslm.Retrieve(background(t), types.ID{Id: disk}); !isSOAPFault[types.NotFound](err) {
		t.Errorf("VSLM says %v", err)
	}
	volumes, err := c.cns.QueryVolume(background(t), &cnstypes.CnsQueryFilter{VolumeIds: []cnstypes.CnsVolumeId{{Id: disk}}})
	must(t, err)
	if len(volumes.Volumes) != 0 {
		t.Errorf("the storage service says %+v", volumes.Volumes)
	}
	list, err := c.vslm.List(background(t))
	must(t, err)
	if len(list.Id) != 0 {
		t.Errorf("VSLM lists %+v", list.Id)
	}
}

func TestMisspeltRulesAreRefused(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	for _, body := range []map[string]any{
		{"method": "Login"},
		{"method": "Login", "fault": "NoSuchFault"},
		{"method": "Login", "fault": "InvalidState", "where": "elsewhere"},
		{"method": "Login", "fualt": "InvalidState"},
		{"fault": "InvalidState"},
		{"method": "Login", "where": "task", "lostReply": true},
	} {
		if status, _ := lab.ask("POST", "/faults", body); status != 400 {
			t.Errorf("%v: status %d", body, status)
		}
	}
}

func (l *lab) fault(rule rules.Rule) string {
	l.t.Helper()
	var made struct{ ID string }
	l.tell("POST", "/faults", rule, &made)
	return made.ID
}

func soapFaultOf(err error) any {
	if err == nil || !soap.IsSoapFault(err) {
		return nil
	}
	return soap.ToSoapFault(err).VimFault()
}

func isSOAPFault[F any](err error) bool {
	_, ok := soapFaultOf(err).(F)
	return ok
}

func isFault[F any](fault *types.LocalizedMethodFault) bool {
	if fault == nil {
		return false
	}
	_, ok := any(fault.Fault).(*F)
	return ok
}

// taskFault waits for a task that must fail.
func taskFault(t *testing.T, task *vslm.Task) any {
	t.Helper()
	_, err := task.Wait(background(t), time.Minute)
	if err == nil {
		return nil
	}
	if !soap.IsVimFault(err) {
		t.Fatal(err)
	}
	return dereference(soap.ToVimFault(err))
}

func vslmFault(t *testing.T, c *client, task types.ManagedObjectReference) any {
	t.Helper()
	catalog, err := vslm.NewClient(background(t), c.Client)
	must(t, err)
	_, err = vslm.NewTask(catalog, task).QueryInfo(background(t))
	if err == nil {
		t.Fatal(errors.New("the task is known"))
	}
	return soapFaultOf(err)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never seen: %s", what)
}

// dereference lets a fault be matched by its type, whether it came by pointer or not.
func dereference(fault types.BaseMethodFault) any {
	return reflect.Indirect(reflect.ValueOf(fault)).Interface()
}
