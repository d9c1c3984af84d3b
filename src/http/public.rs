//! The routes that need no token, matched as axum matches routes. Knows methods and paths; no
//! request.

use std::fmt;

use axum::http::Method;

/// A route that needs no token: `{name}` stands for one segment of its path, `{*rest}` for all that
/// follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicRoute {
    pub(crate) method: Method,
    pub(crate) path: String,
}

/// A path that cannot be matched.
#[derive(Debug)]
pub(crate) struct PathError {
    pub(crate) route: PublicRoute,
    pub(crate) source: matchit::InsertError,
}

/// All of them.
#[derive(Clone, Default)]
pub(crate) struct PublicRoutes {
    of: Vec<(Method, matchit::Router<()>)>,
}

impl fmt::Debug for PublicRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = self.of.iter().map(|(method, _)| method);
        f.debug_list().entries(methods).finish()
    }
}

impl PublicRoutes {
    pub(crate) fn new(routes: impl Iterator<Item = PublicRoute>) -> Result<Self, PathError> {
        let mut all = Self::default();
        for route in routes {
            let router = all.router(&route.method);
            match router.insert(route.path.clone(), ()) {
                // The same path once more, or with another name for the same segment.
                Ok(()) | Err(matchit::InsertError::Conflict { .. }) => {}
                Err(source) => return Err(PathError { route, source }),
            }
        }
        Ok(all)
    }

    fn router(&mut self, method: &Method) -> &mut matchit::Router<()> {
        let known = self.of.iter().position(|(known, _)| known == method);
        let index = known.unwrap_or_else(|| {
            self.of.push((method.clone(), matchit::Router::new()));
            self.of.len() - 1
        });
        &mut self.of[index].1
    }

    /// Whether a request needs no token.
    pub(crate) fn cover(&self, method: &Method, path: &str) -> bool {
        // Whoever may read may ask how much there would be to read.
        let method = match *method {
            Method::HEAD => &Method::GET,
            _ => method,
        };
        let mut own = self.of.iter().filter(|(known, _)| known == method);
        own.any(|(_, router)| router.at(path).is_ok())
    }

    /// Whether anybody declared `/`.
    pub(crate) fn has_root(&self) -> bool {
        self.of.iter().any(|(_, router)| router.at("/").is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(all: &[(&str, &str)]) -> Result<PublicRoutes, PathError> {
        PublicRoutes::new(all.iter().map(|(method, path)| PublicRoute {
            method: method.parse().unwrap(),
            path: (*path).to_owned(),
        }))
    }

    /// H9
    #[test]
    fn methods_segments_and_rests_count() {
        let all = [
            ("GET", "/a/{id}"),
            ("GET", "/a/{name}"),
            ("GET", "/a/b"),
            ("POST", "/a/{id}/c"),
            ("GET", "/files/{*rest}"),
        ];
        let routes = routes(&all).unwrap();
        let table = [
            ("GET", "/a/1", true),
            ("HEAD", "/a/1", true),
            ("POST", "/a/1", false),
            ("GET", "/a/b", true),
            ("GET", "/a/", false),
            ("GET", "/a/1/c", false),
            ("POST", "/a/1/c", true),
            ("GET", "/files/x/y/z.js", true),
            ("GET", "/files/x", true),
            ("DELETE", "/files/x", false),
            ("GET", "/filesx", false),
        ];
        for (method, path, covered) in table {
            let found = routes.cover(&method.parse().unwrap(), path);
            assert_eq!(found, covered, "{method} {path}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_matched_is_told() {
        let error = routes(&[("GET", "/a/{id")]).unwrap_err();
        assert_eq!(error.route.path, "/a/{id");
    }
}
