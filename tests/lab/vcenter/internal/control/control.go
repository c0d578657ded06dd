// Package control is how tests and people tell the double what to do: plain
// HTTP and JSON, beside the vSphere protocol. README.md of this module lists
// the requests with examples.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
	"lab.velero-plugin-for-vsphere/vcenter/internal/gate"
	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// ScriptName is the file that tells the stand-in VDDK library what to do wrong.
const ScriptName = "vddk.json"

type server struct {
	vcenter *double.Double
	gate    *gate.Gate
}

// New serves the control requests.
func New(vcenter *double.Double, front *gate.Gate) http.Handler {
	s := &server{vcenter: vcenter, gate: front}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /disks", s.listDisks)
	mux.HandleFunc("GET /disks/{disk}", s.showDisk)
	mux.HandleFunc("DELETE /disks/{disk}", s.eraseDisk)
	mux.HandleFunc("DELETE /disks/{disk}/snapshots/{snapshot}", s.eraseSnapshot)
	mux.HandleFunc("POST /attach", s.attach)
	mux.HandleFunc("POST /detach", s.detach)
	mux.HandleFunc("GET /tracking", s.showTracking)
	mux.HandleFunc("POST /tracking", s.track)
	mux.HandleFunc("POST /relocate", s.relocate)
	mux.HandleFunc("GET /machines", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.vcenter.Machines()) })
	mux.HandleFunc("POST /machines", s.changeMachine)
	mux.HandleFunc("GET /lacks", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.vcenter.Lacks()) })
	mux.HandleFunc("POST /lacks", s.setLacks)
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.vcenter.Rules.All()) })
	mux.HandleFunc("POST /faults", s.addFault)
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) { s.vcenter.Rules.Clear(); done(w, nil) })
	mux.HandleFunc("DELETE /faults/{id}", s.removeFault)
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.gate.Sessions.Open()) })
	mux.HandleFunc("POST /sessions/expire", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]int{"expired": s.gate.Sessions.Expire()})
	})
	mux.HandleFunc("GET /logins", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.gate.Sessions.Logins()) })
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, r *http.Request) {
		reply(w, s.gate.Calls.Counts(r.URL.Query().Get("disk")))
	})
	mux.HandleFunc("GET /vddk", s.showScript)
	mux.HandleFunc("PUT /vddk", s.replaceScript)
	return mux
}

// Disk is a disk as the control address shows it.
type Disk struct {
	ID            string     `json:"id"`
	Name          string     `json:"name"`
	Path          string     `json:"path"`
	CapacityBytes int64      `json:"capacityBytes"`
	CreateTime    time.Time  `json:"createTime"`
	Datastore     string     `json:"datastore"`
	FilePath      string     `json:"filePath"`
	Volume        string     `json:"volume,omitempty"` // its name, when it is a volume of the storage service
	Tracking      bool       `json:"tracking"`
	Attached      *string    `json:"attached"` // the virtual machine, or null
	Snapshots     []Snapshot `json:"snapshots"`
}

// Snapshot is a snapshot as the control address shows it.
type Snapshot struct {
	ID            string    `json:"id"`
	Path          string    `json:"path"`
	CreateTime    time.Time `json:"createTime"`
	Description   string    `json:"description"`
	CapacityBytes int64     `json:"capacityBytes"`
	ChangeID      string    `json:"changeId,omitempty"`
}

func (s *server) show(disk store.Disk) Disk {
	shown := Disk{
		ID: disk.ID, Name: disk.Name, Path: s.path(s.vcenter.Disks.DiskPath(disk.ID)), CapacityBytes: disk.CapacityBytes(),
		CreateTime: disk.CreateTime, Datastore: disk.Datastore, FilePath: disk.FilePath, Tracking: disk.Tracking != nil, Snapshots: []Snapshot{},
	}
	if disk.Volume != nil {
		shown.Volume = disk.Volume.Name
	}
	if disk.Attached != nil {
		shown.Attached = &disk.Attached.VM
	}
	for _, snapshot := range disk.Snapshots {
		shown.Snapshots = append(shown.Snapshots, Snapshot{
			ID: snapshot.ID, Path: s.path(s.vcenter.Disks.SnapshotPath(disk.ID, snapshot.ID)), CreateTime: snapshot.CreateTime,
			Description: snapshot.Description, CapacityBytes: snapshot.CapacityMiB * store.MiB, ChangeID: snapshot.ChangeID,
		})
	}
	return shown
}

// path is absolute, so that a caller elsewhere on the machine can open it.
func (s *server) path(path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return absolute
}

func (s *server) listDisks(w http.ResponseWriter, _ *http.Request) {
	all := []Disk{}
	for _, disk := range s.vcenter.Disks.Disks() {
		all = append(all, s.show(disk))
	}
	reply(w, all)
}

func (s *server) showDisk(w http.ResponseWriter, r *http.Request) {
	disk, err := s.vcenter.Disks.Disk(r.PathValue("disk"))
	if err != nil {
		done(w, err)
		return
	}
	reply(w, s.show(disk))
}

func (s *server) eraseDisk(w http.ResponseWriter, r *http.Request) {
	done(w, s.vcenter.Disks.Erase(r.PathValue("disk")))
}

func (s *server) eraseSnapshot(w http.ResponseWriter, r *http.Request) {
	done(w, s.vcenter.Disks.DeleteSnapshot(r.PathValue("disk"), r.PathValue("snapshot")))
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	var request struct{ Disk, VM string }
	if !read(w, r, &request) {
		return
	}
	if request.VM == "" {
		http.Error(w, "say which vm gets the disk", http.StatusBadRequest)
		return
	}
	done(w, s.vcenter.Attach(request.Disk, request.VM))
}

func (s *server) detach(w http.ResponseWriter, r *http.Request) {
	var request struct{ Disk string }
	if read(w, r, &request) {
		done(w, s.vcenter.Detach(request.Disk))
	}
}

func (s *server) setLacks(w http.ResponseWriter, r *http.Request) {
	var all []double.Lack
	if read(w, r, &all) {
		s.vcenter.SetLacks(all)
		done(w, nil)
	}
}

func (s *server) addFault(w http.ResponseWriter, r *http.Request) {
	var rule rules.Rule
	if !read(w, r, &rule) {
		return
	}
	if err := double.CheckRule(&rule); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, err := s.vcenter.Rules.Add(rule)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, map[string]string{"id": id})
}

func (s *server) removeFault(w http.ResponseWriter, r *http.Request) {
	if !s.vcenter.Rules.Remove(r.PathValue("id")) {
		http.Error(w, "there is no such rule", http.StatusNotFound)
		return
	}
	done(w, nil)
}

func (s *server) showScript(w http.ResponseWriter, _ *http.Request) {
	text, err := os.ReadFile(filepath.Join(s.vcenter.Disks.Dir(), ScriptName))
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte(`{"rules":[]}`), nil
	}
	if err != nil {
		done(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

func (s *server) replaceScript(w http.ResponseWriter, r *http.Request) {
	var script Script
	if !read(w, r, &script) {
		return
	}
	if err := script.check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text, err := json.MarshalIndent(script, "", "  ")
	if err == nil {
		err = s.vcenter.Disks.WriteScript(ScriptName, append(text, '\n'))
	}
	done(w, err)
}

// read takes a request's JSON; what it does not know it refuses, so that a
// misspelt word is no rule that never applies.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		http.Error(w, fmt.Sprintf("read the request: %s", err), http.StatusBadRequest)
		return false
	}
	return true
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value) // fails only when the caller has gone
}

func done(w http.ResponseWriter, err error) {
	var refusal *store.Refusal
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.As(err, &refusal) && refusal.Kind == store.NotFound:
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.As(err, &refusal):
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
