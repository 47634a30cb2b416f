//! No two modules of one level import each other, neither straight nor by way of others: what is called a
//! folder here is a module with all below it. A child may use what its parent defines, unless the parent itself
//! uses another child that needs this one: such a circle is one of three files, which the parent hides.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use harness::process::workspace;
use source::File;

type Module = Vec<String>;

/// The files of a crate, by module.
struct Crate(BTreeMap<Module, File>);

impl Crate {
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut open = vec![(Module::new(), root.to_owned())];
        while let Some((module, path)) = open.pop() {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let file = File::parse(&text);
            let folder = path.parent().unwrap();
            let own = matches!(path.file_name().unwrap().to_str().unwrap(), "lib.rs" | "main.rs" | "mod.rs");
            let inside = if own { folder.to_owned() } else { path.with_extension("") };
            for (name, given) in &file.children {
                let names = [inside.join(format!("{name}.rs")), inside.join(name).join("mod.rs")];
                let given = given.as_ref().map(|given| folder.join(given));
                let child = given.or_else(|| names.into_iter().find(|name| name.exists()));
                let child = child.unwrap_or_else(|| panic!("no file of {name} beside {}", path.display()));
                open.push((below(&module, name), child));
            }
            files.insert(module, file);
        }
        Self(files)
    }

    /// The module of ours that a path leads to, and whether it names something that is defined there.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<(Module, bool)> {
        self.resolve_unseen(from, path, &mut BTreeSet::new())
    }

    /// Through what modules on the way import from others.
    fn resolve_unseen(
        &self,
        from: &Module,
        path: &[String],
        seen: &mut BTreeSet<(Module, String)>,
    ) -> Option<(Module, bool)> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let up = path.iter().take_while(|word| *word == "super").count();
                (from[..from.len().checked_sub(up)?].to_vec(), &path[up..])
            }
            child => {
                let child = below(from, child);
                if !self.0.contains_key(&child) {
                    return None;
                }
                (child, &path[1..])
            }
        };
        while let [next, tail @ ..] = rest {
            let child = below(&at, next);
            if !self.0.contains_key(&child) {
                break;
            }
            (at, rest) = (child, tail);
        }
        let elsewhere = rest.split_first().and_then(|(name, tail)| {
            let import = self.0[&at].names.get(name)?;
            let on = [import, tail].concat();
            seen.insert((at.clone(), name.clone())).then(|| self.resolve_unseen(&at, &on, seen))?
        });
        elsewhere.or(Some((at, !rest.is_empty())))
    }

    /// Which modules import which, both named as they stand side by side.
    fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut imports = BTreeMap::<_, BTreeSet<_>>::new();
        for (from, file) in &self.0 {
            for (to, _) in file.paths.iter().filter_map(|path| self.resolve(from, path)) {
                let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                // Below one another they are not side by side.
                if same < from.len() && same < to.len() {
                    imports.entry(from[..=same].to_vec()).or_default().insert(to[..=same].to_vec());
                }
            }
        }
        imports
    }
}

fn below(module: &[String], child: &str) -> Module {
    let child = child.to_owned();
    module.iter().cloned().chain([child]).collect()
}

/// A way from one module to another along imports.
fn way(imports: &BTreeMap<Module, BTreeSet<Module>>, from: &Module, to: &Module) -> Option<Vec<Module>> {
    let (mut came_from, mut open) = (BTreeMap::<_, Module>::new(), vec![from.clone()]);
    while let Some(at) = open.pop() {
        for next in imports.get(&at).into_iter().flatten() {
            if !came_from.contains_key(next) {
                came_from.insert(next.clone(), at.clone());
                open.push(next.clone());
            }
        }
    }
    let mut way = vec![came_from.get(to).map(|_| to.clone())?];
    while way.last() != Some(from) || way.len() == 1 {
        way.push(came_from[&way[way.len() - 1]].clone());
    }
    way.reverse();
    Some(way)
}

/// Ways from a module to a child that it uses itself, on to another child, and back to what it defines.
fn ways_through_parents(tree: &Crate, imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let mut children_in_need = BTreeSet::new();
    for (from, file) in &tree.0 {
        for (to, is_defined) in file.paths.iter().filter_map(|path| tree.resolve(from, path)) {
            if is_defined && from.len() > to.len() && from.starts_with(&to) {
                children_in_need.insert(from[..=to.len()].to_vec());
            }
        }
    }
    let mut ways = Vec::new();
    for (parent, file) in &tree.0 {
        let used = file.own_paths.iter().filter_map(|path| tree.resolve(parent, path));
        let used = used.filter(|(to, _)| to.len() > parent.len() && to.starts_with(parent));
        for child in used.map(|(to, _)| to[..=parent.len()].to_vec()).collect::<BTreeSet<_>>() {
            let siblings =
                children_in_need.range(below(parent, "")..).take_while(|to| to.starts_with(parent));
            for other in siblings.filter(|other| other.len() == child.len() && **other != child) {
                let way = way(imports, &child, other);
                ways.extend(way.map(|way| [vec![parent.clone()], way, vec![parent.clone()]].concat()));
            }
        }
    }
    ways
}

/// The circles of a crate, a way for each of their modules.
fn circles(tree: &Crate) -> Vec<String> {
    let imports = tree.imports();
    let ways = imports.keys().filter_map(|module| way(&imports, module, module));
    let ways = ways.chain(ways_through_parents(tree, &imports));
    let name = |module: &Module| if module.is_empty() { "crate".to_owned() } else { module.join("::") };
    ways.map(|way| way.iter().map(name).collect::<Vec<_>>().join(" -> ")).collect()
}

#[test]
fn no_modules_of_one_level_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for (root, least) in [
        ("krpc/src/lib.rs", 15),
        ("dht/src/lib.rs", 150),
        ("dht/src/bin/btdht/main.rs", 25),
        ("client/src/lib.rs", 90),
        ("client/src/bin/btfetch/main.rs", 15),
    ] {
        let tree = Crate::read(&workspace().join(root));
        assert!(tree.0.len() >= least && !tree.imports().is_empty(), "{root}: {} modules", tree.0.len());
        found.extend(circles(&tree).into_iter().map(|circle| format!("{root}: {circle}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn circles_are_found_through_folders_and_names_that_are_passed_on() {
    let tree = |files: &[(&str, &str)]| {
        let file = |(path, text): &(&str, &str)| {
            (path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(), File::parse(text))
        };
        Crate(files.iter().map(file).collect())
    };
    let straight =
        tree(&[("", "mod a; mod b;"), ("a", "use crate::b::X;"), ("b", "fn f() { super::a::g() }")]);
    assert_eq!(circles(&straight), ["a -> b -> a", "b -> a -> b"]);
    // `a` takes from the crate's root what comes from `b::c`.
    let passed_on = tree(&[
        ("", "mod a; mod b; pub use b::Thing;"),
        ("a", "use crate::Thing;"),
        ("b", "mod c; pub use c::Thing;"),
        ("b::c", "use crate::a; pub struct Thing;"),
    ]);
    assert_eq!(circles(&passed_on).len(), 2);
    // A parent and its child are not side by side; what tests import is no matter.
    let fine = tree(&[
        ("", "mod a; mod b; pub struct S;"),
        ("a", "mod c; use c::T; pub struct U;"),
        ("a::c", "use super::U; use crate::S; #[cfg(test)] mod tests { use crate::b; }"),
        ("b", "use crate::a::U;"),
    ]);
    assert_eq!(circles(&fine), [""; 0]);
    // The parent uses one child, that one another, and that one what the parent defines.
    let hidden = |parent: &str| {
        let files = [
            ("", "mod p;"),
            ("p", parent),
            ("p::c", "use super::d::T; pub struct U;"),
            ("p::d", "use crate::p::S; pub struct T;"),
        ];
        circles(&tree(&files))
    };
    assert_eq!(hidden("mod c; mod d; use c::U; pub struct S;"), ["p -> p::c -> p::d -> p"]);
    assert_eq!(hidden("mod c; mod d; pub use self::c::U; pub struct S(U);"), ["p -> p::c -> p::d -> p"]);
    assert_eq!(hidden("pub struct S(c::U); mod c; mod d;"), ["p -> p::c -> p::d -> p"]);
    assert_eq!(hidden("mod c; mod d; pub use self::c::U; pub struct S;"), [""; 0]);
}
