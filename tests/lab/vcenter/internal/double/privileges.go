package double

import (
	"slices"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Lack is a privilege that the account does not have. Nothing is refused for
// want of it: that is for rules.
type Lack struct {
	Privilege string `json:"privilege"`
	Entity    string `json:"entity,omitempty"` // the reference's value; empty: on every object
}

// lacks are those in force.
type lacks struct {
	mu  sync.Mutex
	all []Lack
}

// Lacks are the privileges that the account does not have.
func (d *Double) Lacks() []Lack {
	d.lacks.mu.Lock()
	defer d.lacks.mu.Unlock()
	return append([]Lack{}, d.lacks.all...)
}

// SetLacks takes privileges from the account; those that are not named it has.
func (d *Double) SetLacks(all []Lack) {
	d.lacks.mu.Lock()
	defer d.lacks.mu.Unlock()
	d.lacks.all = slices.Clone(all)
}

func (d *Double) has(privilege, entity string) bool {
	return !slices.ContainsFunc(d.Lacks(), func(lack Lack) bool {
		return lack.Privilege == privilege && (lack.Entity == "" || lack.Entity == entity)
	})
}

// authorization is the simulator's, but says no where it shall.
type authorization struct {
	*simulator.AuthorizationManager
	d *Double
}

func (d *Double) serveAuthorization() {
	registry := d.model.Map()
	reference := *d.model.ServiceContent.AuthorizationManager
	stock := registry.Get(reference).(*simulator.AuthorizationManager)
	registry.Put(&authorization{AuthorizationManager: stock, d: d})
}

func (a *authorization) HasPrivilegeOnEntities(ctx *simulator.Context, request *types.HasPrivilegeOnEntities) soap.HasFault {
	body := new(methods.HasPrivilegeOnEntitiesBody)
	if ctx.Session == nil || ctx.Session.Key != request.SessionId {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "sessionId"})
		return body
	}
	body.Res = new(types.HasPrivilegeOnEntitiesResponse)
	for _, entity := range request.Entity {
		if ctx.Map.Get(entity) == nil {
			body.Res = nil
			body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: entity})
			return body
		}
		answer := types.EntityPrivilege{Entity: entity}
		for _, id := range request.PrivId {
			granted := a.d.has(id, entity.Value)
			answer.PrivAvailability = append(answer.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: granted})
		}
		body.Res.Returnval = append(body.Res.Returnval, answer)
	}
	return body
}
