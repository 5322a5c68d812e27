// Package rendering makes of deploy/ what a cluster would be given: by kustomize
// and by Helm, as their commands make it.
package rendering

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Object is one resource.
type Object map[string]any

// At follows keys into an object; nil where there is nothing.
func (o Object) At(keys ...string) any {
	value := any(map[string]any(o))
	for _, key := range keys {
		node, _ := value.(map[string]any)
		value = node[key]
	}
	return value
}

// Kind of the object.
func (o Object) Kind() string { text, _ := o["kind"].(string); return text }

// Name of the object.
func (o Object) Name() string { text, _ := o.At("metadata", "name").(string); return text }

// Kustomization is what `kubectl apply -k` sends.
func Kustomization(folder string) ([]Object, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, err
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// Package writes the archive that `helm push` and `helm install` take into a folder,
// and tells its name. The same files and the same time make the same bytes.
func Package(folder, version string, modified time.Time, into string) (string, error) {
	chart, err := load(folder, modified)
	if err != nil {
		return "", err
	}
	chart.Metadata.Version, chart.Metadata.AppVersion = version, "v"+version
	return chartutil.Save(chart, into)
}

// Chart is what `helm install` sends of a chart's folder or archive, with values
// over those of the chart.
func Chart(name, namespace string, values map[string]any) ([]Object, error) {
	chart, err := load(name, time.Time{})
	if err != nil {
		return nil, err
	}
	capabilities := common.DefaultCapabilities.Copy() // in a test: those of a Kubernetes of long ago
	version, err := common.ParseKubeVersion("v1.37.0")
	if err != nil {
		return nil, err
	}
	capabilities.KubeVersion = *version
	if !chartutil.IsCompatibleRange(chart.Metadata.KubeVersion, version.String()) {
		return nil, fmt.Errorf("kubeVersion: %s is not for %s", chart.Metadata.KubeVersion, version)
	}
	release := common.ReleaseOptions{Name: "sluice", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, values, release, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(context.Background(), chart, all)
	if err != nil {
		return nil, err
	}
	var objects []Object
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(name) != ".yaml" || strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		some, err := Parse([]byte(files[name]))
		if err != nil {
			return nil, errors.Join(errors.New(name), err)
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

// load reads a chart as Helm does, which tells of every link that it follows in a
// folder. The files of one are as old as is said.
func load(name string, modified time.Time) (*chart.Chart, error) {
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		return loader.Load(name)
	}
	var files []*archive.BufferedFile
	root := os.DirFS(name)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		files = append(files, &archive.BufferedFile{Name: name, ModTime: modified, Data: data})
		return err
	})
	if err != nil {
		return nil, err
	}
	return loader.LoadFiles(files)
}

// Parse splits YAML of several documents, and sorts them.
func Parse(text []byte) (objects []Object, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var one map[string]any
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if one != nil {
			objects = append(objects, one)
		}
	}
	slices.SortStableFunc(objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Kind(), b.Kind()), cmp.Compare(a.Name(), b.Name()))
	})
	return objects, nil
}
