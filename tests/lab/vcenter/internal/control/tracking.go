package control

import "net/http"

// showTracking says whether disks that are made from now on are tracked.
func (s *server) showTracking(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]bool{"newDisks": s.vcenter.Disks.TracksNewDisks()})
}

// track switches changed block tracking of a disk or, when none is named, of
// all disks that are made from now on.
func (s *server) track(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Disk  string
		On    *bool
		Reset bool
	}
	if !read(w, r, &request) {
		return
	}
	switch {
	case request.On == nil:
		http.Error(w, "say whether tracking is to be on", http.StatusBadRequest)
	case request.Disk == "" && request.Reset:
		http.Error(w, "say whose tracking is to begin anew", http.StatusBadRequest)
	case request.Disk == "":
		s.vcenter.Disks.TrackNewDisks(*request.On)
		done(w, nil)
	default:
		done(w, s.vcenter.TrackDisk(request.Disk, *request.On, request.Reset))
	}
}

// changeMachine switches what a virtual machine tracks, or moves it to another
// host, or both.
func (s *server) changeMachine(w http.ResponseWriter, r *http.Request) {
	var request struct {
		VM       string
		Tracking *bool
		Host     string
	}
	if !read(w, r, &request) {
		return
	}
	if request.Tracking == nil && request.Host == "" {
		http.Error(w, "say whether the vm is to track changes, or on which host it is to run", http.StatusBadRequest)
		return
	}
	var err error
	if request.Host != "" {
		err = s.vcenter.MoveMachine(request.VM, request.Host)
	}
	if err == nil && request.Tracking != nil {
		err = s.vcenter.TrackMachine(request.VM, *request.Tracking)
	}
	done(w, err)
}

func (s *server) relocate(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Disk, Datastore string
		KeepChangeIDs   bool
	}
	if read(w, r, &request) {
		done(w, s.vcenter.Relocate(request.Disk, request.Datastore, request.KeepChangeIDs))
	}
}
